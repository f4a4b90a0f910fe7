"""Multilayer perceptron."""

import math

from torch import nn

from slm_lab.agent.net.build import hidden_layers, spectral_norm_last
from slm_lab.spec.net import FullyConnected


def mlp_body(spec: FullyConnected, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body of an MLPNet: `hid_layers` linear layers, each with its norm and activation.

    Args:
        spec: reads hid_layers, hid_layers_activation, init_fn, batch_norm, layer_norm, batch_renorm and spectral_norm.
        obs_shape: shape of one observation; of more than one dimension, it is flattened.

    Returns:
        The body and the number of its features.
    """
    sizes = [math.prod(obs_shape), *spec.hid_layers]
    flatten = [nn.Flatten()] if len(obs_shape) > 1 else []
    body = nn.Sequential(*flatten, *hidden_layers(spec, sizes))
    if spec.spectral_norm:
        spectral_norm_last(body)
    return body, sizes[-1]
