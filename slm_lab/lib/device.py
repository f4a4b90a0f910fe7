"""Cores and devices: what a session may use."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """Return the number of CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_to_share(slot: int, parallel: int) -> None:
    """Keep this process, and those that it begins, to a share of its cores, where the system can do that.

    Args:
        slot: which of the shares.
        parallel: how many there are; where these are more than the cores, several share one.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first, end = (edge * len(cores) // parallel for edge in (slot, slot + 1))
        os.sched_setaffinity(0, cores[first : max(end, first + 1)])


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
