"""Cores and devices: what a session may use."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """Return the number of CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(gpu: bool | str, index: int) -> "torch.device":
    """Return the device to train on.

    Args:
        gpu: "auto" (a GPU where there is one), True (the same, but its absence is an error) or False.
        index: which session of the machine this is; sessions are dealt out over the GPUs in turn.

    Raises:
        RuntimeError: a GPU is asked for and there is none.
    """
    import torch

    count = torch.cuda.device_count() if gpu is not False else 0
    if count:
        return torch.device("cuda", index % count)
    if gpu is True:
        raise RuntimeError('agent.net.gpu is true, but torch finds no GPU: set it to false or "auto"')
    return torch.device("cpu")
