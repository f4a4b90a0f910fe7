"""The arrays that a memory preallocates: planned first (so that their bytes are known), then made."""

import math
from collections.abc import Mapping

import gymnasium as gym
import numpy as np
import torch

from slm_lab.spec.errors import SpecError

Column = tuple[tuple[int, ...], np.dtype]
"""Shape and dtype of one array."""
Plan = dict[str, Column]
"""Name -> column."""


def obs_dtype(space: gym.Space) -> np.dtype:
    """Return the dtype in which observations of `space` are kept: their own (uint8 stays uint8), float64 as float32."""
    dtype = np.dtype(space.dtype)
    return np.dtype(np.float32) if dtype == np.float64 else dtype


def action_dtype(space: gym.Space) -> np.dtype:
    """Return the dtype in which actions of `space` are kept: float32 where they are real numbers, int64 otherwise."""
    return np.dtype(np.float32 if np.issubdtype(np.dtype(space.dtype), np.floating) else np.int64)


def shape_of(space: gym.Space) -> tuple[int, ...]:
    """Return the shape of one element of `space`; a space without one (a dictionary, say) is an error."""
    if space.shape is None:
        raise TypeError(f"a memory keeps arrays of one shape, and {space} has none")
    return space.shape


def plan_bytes(plan: Plan) -> int:
    """Return the bytes that `allocate(plan)` takes."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in plan.values())


def allocate(plan: Plan, pinned: bool = False) -> dict[str, np.ndarray]:
    """Make the arrays of `plan`, zeroed; pinned ones reach a GPU several times faster, and stay in memory.

    The system hands out the pages of others when they are first written; ask `plan_bytes` whether there is room.

    Raises:
        SpecError: there is none.
    """
    try:
        columns = {name: np.zeros(shape, dtype) for name, (shape, dtype) in plan.items()}
        return {name: torch.from_numpy(x).pin_memory().numpy() for name, x in columns.items()} if pinned else columns
    except MemoryError as error:
        gigabytes = plan_bytes(plan) / 1e9
        raise SpecError(
            f"agent.memory: takes {gigabytes:,.1f} GB, which this machine has not; make it smaller"
        ) from error


def channels_last(blank: np.ndarray) -> np.ndarray:
    """Return a view of blank images `[..., C, H, W]` in which the channels of a pixel lie side by side in memory."""
    *rows, channels, height, width = blank.shape
    return np.moveaxis(blank.reshape(*rows, height, width, channels), -1, -3)


def check_state(where: str, mine: Mapping[str, object], saved: Mapping[str, object]) -> None:
    """Raise ValueError where the sizes of a saved memory are not those of this one."""
    for name, value in mine.items():
        if saved[name] != value:
            raise ValueError(f"this {where} has {name} {value}, and the saved one {saved[name]}")
