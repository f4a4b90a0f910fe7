"""What the scripts have in common: nets, a replay, and a whole update as one graph."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

BETA1, BETA2 = 0.9, 0.999


def make_net(
    sizes: Sequence[int], outputs: int, activation: type[nn.Module] = nn.ReLU, gain: float | None = None
) -> nn.Sequential:
    """Build hidden layers and an output layer; with a `gain` of the latter, all weights are orthogonal."""
    layers: list[nn.Module] = []
    for inputs, width in pairwise(sizes):
        layers += [nn.Linear(inputs, width), activation()]
    net = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
    return net if gain is None else orthogonal(net, gain)


def orthogonal(net: nn.Sequential, gain: float = 2**0.5) -> nn.Sequential:
    """Make the weights orthogonal, those of the last layer with `gain`, and the biases 0."""
    layers = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)
    return net


class Buffer:
    """The latest transitions of one environment, in numpy."""

    def __init__(self, size: int, obs_dim: int, action_shape: tuple[int, ...], action_dtype: type) -> None:
        self.obs, self.next_obs = (np.zeros((size, obs_dim), np.float32) for _ in range(2))
        self.action = np.zeros((size, *action_shape), action_dtype)
        self.reward, self.alive = (np.zeros(size, np.float32) for _ in range(2))
        self.columns = (self.obs, self.next_obs, self.action, self.reward, self.alive)
        self.size, self.count = size, 0
        self.random = np.random.default_rng(0)

    def add(self, obs: np.ndarray, next_obs: np.ndarray, action: Any, reward: float, terminated: bool) -> None:
        """Remember one transition."""
        row = self.count % self.size
        self.obs[row], self.next_obs[row], self.action[row] = obs, next_obs, action
        self.reward[row], self.alive[row] = reward, not terminated
        self.count += 1

    def sample(self, count: int) -> list[Tensor]:
        """Draw obs, next obs, action, reward, and 0 where the episode terminated, else 1."""
        rows = self.random.integers(0, min(self.count, self.size), count)
        return [torch.from_numpy(column[rows]) for column in self.columns]


def make_step(
    net: nn.Module,
    loss: Callable[..., Tensor],
    mode: str,
    lr: float,
    eps: float = 1e-8,
    max_norm: float | None = None,
) -> Callable[..., Any]:
    """Return what takes one gradient step on a batch, by Adam.

    Args:
        net: what is trained.
        loss: function of `net`, or of what stands in its place, and of a batch; returns a scalar.
        mode: of the package.
        lr: learning rate.
        eps: of Adam.
        max_norm: of the gradient; None for no clipping.
    """
    if mode == "functional":

        def of_parameters(parameters: dict[str, Tensor], *batch: Tensor) -> Tensor:
            return loss(lambda *inputs: functional_call(net, parameters, inputs), *batch)

        return FunctionalStep(net, of_parameters, lr, eps, max_norm)
    parameters = list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr, eps=eps, fused=True)

    def step(*batch: Tensor) -> None:
        optimizer.zero_grad()
        loss(net, *batch).backward(inputs=parameters)
        if max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()

    return torch.compile(step) if mode == "compiled" else step


class FunctionalStep:
    """A step as a function of parameters and Adam's state, so that it is one graph; see `make_step`."""

    def __init__(
        self, net: nn.Module, loss: Callable[..., Tensor], lr: float, eps: float, max_norm: float | None
    ) -> None:
        self.parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self.mean = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self.square = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self.count = torch.zeros(())

        def step(parameters: dict, mean: dict, square: dict, count: Tensor, *batch: Tensor) -> Tensor:
            gradients, value = torch.func.grad_and_value(loss)(parameters, *batch)
            if max_norm is not None:
                norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients.values()))
                scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
                gradients = {name: gradient * scale for name, gradient in gradients.items()}
            count.add_(1)
            unbias1, unbias2 = 1 - BETA1**count, 1 - BETA2**count
            for name, gradient in gradients.items():
                mean[name].lerp_(gradient, 1 - BETA1)
                square[name].mul_(BETA2).add_(gradient.square() * (1 - BETA2))
                parameters[name].sub_(lr / unbias1 * mean[name] / ((square[name] / unbias2).sqrt() + eps))
            return value

        self._step = torch.compile(step, fullgraph=True)

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take one gradient step; return the loss."""
        with torch.no_grad():  # of what else the loss is a function of: nothing there is to be trained
            return self._step(self.parameters, self.mean, self.square, self.count, *batch)
