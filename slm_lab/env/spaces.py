"""Between an environment's own spaces and those that the agent sees."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from slm_lab.spec.errors import SpecError

ToLab = Callable[[Any], Any]
"""One observation of an environment -> what is written into a row of the lab's array."""
ToEnv = Callable[[np.ndarray], np.ndarray]
"""[N, *action] of the agent -> a fresh array [N, *action] for the environments."""


def lab_obs_space(space: gym.Space, name: str) -> tuple[Box, ToLab | None]:
    """Return the space of observations as the agent sees them, and the conversion (None: plain assignment does).

    uint8 images keep their dtype and get their channels first; Discrete and MultiDiscrete become one-hot vectors;
    everything else becomes float32.

    Raises:
        SpecError: the space cannot be one array.
    """
    match space:
        case Discrete() | MultiDiscrete():
            size = gym.spaces.flatdim(space)
            return Box(0.0, 1.0, (size,), np.float32), lambda obs: gym.spaces.flatten(space, obs)
        case MultiBinary():
            return Box(0.0, 1.0, space.shape, np.float32), None
        case Box(dtype=np.uint8) if _channels_last(space.shape):
            height, width, channels = space.shape
            return Box(0, 255, (channels, height, width), np.uint8), lambda obs: np.moveaxis(obs, -1, 0)
        case Box(dtype=np.uint8):
            return space, None
        case Box():
            shape = space.shape or (1,)
            with np.errstate(over="ignore"):  # bounds beyond float32 are none
                low, high = (bound.astype(np.float32).reshape(shape) for bound in (space.low, space.high))
            return Box(low, high, shape, np.float32), None
    raise SpecError(
        f"env.name: {name} has observations of type {type(space).__name__}, which are not one array; "
        'flatten them with "wrappers": [{"id": "FlattenObservation"}]'
    )


def lab_action_space(space: gym.Space, name: str) -> tuple[gym.Space, ToEnv]:
    """Return the space of actions as the agent sees them, and the conversion to the environment's own.

    A Box with finite bounds becomes [-1, 1]; actions beyond are clipped.

    Raises:
        SpecError: the space cannot be one array.
    """
    match space:
        case Discrete(start=start):
            return Discrete(int(space.n)), lambda action: np.asarray(action) + int(start)
        case MultiDiscrete(start=start):
            return MultiDiscrete(space.nvec), lambda action: np.asarray(action) + start
        case MultiBinary():
            return space, np.array
        case Box() if np.issubdtype(space.dtype, np.floating):
            if space.is_bounded("both"):
                return Box(-1.0, 1.0, space.shape, np.float32), _rescale(space)
            return space, lambda action: _clip(action, space.low, space.high)
    raise SpecError(
        f"env.name: {name} has actions of type {type(space).__name__}, which no algorithm can choose; "
        "wrap it so that they are Discrete, MultiDiscrete, MultiBinary or a Box of floats"
    )


def rows(space: gym.Space, action: np.ndarray) -> Sequence[Any]:
    """Return the actions one by one, as an environment with action `space` takes them."""
    # plain integers: environments check and index with them several times faster than with numpy's
    return action.tolist() if isinstance(space, Discrete) else action  # ty: ignore[invalid-explicit-return]


def _rescale(space: Box) -> ToEnv:
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    if (middle == 0).all() and (half == 1).all():
        return lambda action: _clip(action, space.low, space.high)
    # clipped after it is scaled as well: middle + half may miss the bound by a rounding
    return lambda action: _clip(middle + half * _clip(action, -1.0, 1.0), space.low, space.high)


def _clip(x: np.ndarray, low: Any, high: Any) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)  # a fifth of the overhead of np.clip


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)
