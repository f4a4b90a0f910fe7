"""A net that is not the lab's."""

import math

from torch import nn


class Tower(nn.Sequential):
    """One hidden layer."""

    def __init__(self, obs_shape, width=4):
        super().__init__(nn.Flatten(), nn.Linear(math.prod(obs_shape), width), nn.Tanh())
