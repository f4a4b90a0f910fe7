"""How torch computes with float32 on a CPU."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

LARGE_WEIGHT = 256 * 256
"""Numbers in a layer from which on oneDNN is faster than MKL, by up to two times on CPUs of other makers."""
MAX_ERROR = 1e-5
"""Of a product, relative to its largest number: float32 comes to 1e-6, bfloat16 to 3e-3."""


def choose_matmul(modules: Iterable[nn.Module]) -> None:
    """Let oneDNN multiply for large nets, where on this machine it is as exact as MKL, which is torch's default.

    torch calls that "medium" precision, as oneDNN may then round to bfloat16 where a CPU has units for it.
    """
    widest = max((p.numel() for module in modules for p in module.parameters() if p.dim() == 2), default=0)
    torch.set_float32_matmul_precision("medium" if widest >= LARGE_WEIGHT and medium_is_exact() else "highest")


@cache
def medium_is_exact() -> bool:
    """Tell whether products at "medium" precision keep the digits of float32 here."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = left.double() @ right.double()
    error = (left @ right - exact).abs().max() / exact.abs().max()
    torch.set_float32_matmul_precision(before)
    return error.item() < MAX_ERROR


@contextmanager
def tiny_is_zero() -> Generator[None]:
    """Take numbers below 1e-38 for zero: a CPU is slow at them, and Adam's means of gradients that stop fade to such.

    Threads take over the setting from the one that begins them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
