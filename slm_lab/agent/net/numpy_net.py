"""What numpy does faster than torch: small nets, a layer in one microsecond for five, and tanh."""

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

LARGEST_LAYER = 128 * 128
"""Weights of a layer up to which numpy is the faster one, whatever the number of rows."""
MAX_PRODUCTS = 16 * LARGEST_LAYER
"""Rows times weights of a layer up to which it is so with any layer."""

_hidden = False

Layer = tuple[np.ndarray, np.ndarray, Callable[..., np.ndarray] | None]
"""Transposed weight, bias, and activation in place; the first two are views of the parameters."""


def _relu(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0, out=out)


def numpy_sees(x: Any) -> TypeGuard[Tensor]:
    """Tell whether `x` is a tensor in the CPU's memory, and none that a compiler or a tracer looks at."""
    return not _hidden and not torch.compiler.is_compiling() and type(x) is Tensor and x.is_cpu


@contextmanager
def hidden_from_numpy() -> Generator[None]:
    """Have torch do everything, so that what it does can be written down."""
    global _hidden
    _hidden = True
    try:
        yield
    finally:
        _hidden = False


class Tanh(nn.Module):
    """tanh; on a CPU, and without a gradient, by numpy, which takes a tenth of torch's time."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh of `x`."""
        plain = x.requires_grad or not numpy_sees(x) or x.dtype != torch.float32
        return torch.tanh(x) if plain else torch.from_numpy(np.tanh(x.numpy()))


ACTIVATIONS: dict[type[nn.Module], Callable[..., np.ndarray]] = {Tanh: np.tanh, nn.Tanh: np.tanh, nn.ReLU: _relu}


class NumpyNet:
    """What a body and its heads put out, computed in numpy from the very memory of their parameters.

    Args:
        body: linear layers and activations one after another.
        heads: of the same kind.

    Attributes:
        max_rows: observations at once up to which it is the faster one.

    Raises:
        TypeError: there is another layer among them, a larger one, or one that is not in the CPU's memory.
    """

    def __init__(self, body: nn.Module, heads: Iterable[nn.Module]) -> None:
        self._body, self._heads = _layers(body), [_layers(head) for head in heads]
        self._parameters = [parameter for module in (body, *heads) for parameter in module.parameters()]
        self._places = self._where()
        largest = max(parameter.numel() for parameter in self._parameters)
        self.max_rows = sys.maxsize if largest <= LARGEST_LAYER else MAX_PRODUCTS // largest

    def __call__(self, obs: np.ndarray, heads: slice) -> list[np.ndarray]:
        """Return the outputs `[B, out_dim]` of `heads` for observations `[B, *obs]`."""
        x = _run(self._body, obs.reshape(len(obs), -1).astype(np.float32, copy=False))
        return [_run(head, x) for head in self._heads[heads]]

    def valid(self) -> bool:
        """Tell whether the parameters are where they were: a copy of a net, and workers that share one, move them."""
        return self._places == self._where()

    def _where(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self._parameters]


def _run(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    for weight, bias, activation in layers:
        x = x.dot(weight)
        x += bias
        if activation is not None:
            activation(x, out=x)
    return x


def _layers(module: nn.Module) -> list[Layer]:
    layers: list[Any] = []
    for child in module if type(module) is nn.Sequential else [module]:
        if child._forward_hooks or child._forward_pre_hooks:
            raise TypeError(f"{child} does more than its weights tell")
        if type(child) is nn.Linear and child.weight.numel() <= MAX_PRODUCTS and child.bias is not None:
            layers.append((child.weight.detach().numpy().T, child.bias.detach().numpy(), None))
        elif type(child) in ACTIVATIONS and layers and layers[-1][2] is None:
            layers[-1] = (*layers[-1][:2], ACTIVATIONS[type(child)])
        elif type(child) is not nn.Flatten or layers:
            raise TypeError(f"{child} is not computed in numpy")
    return layers
