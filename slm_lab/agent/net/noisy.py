"""Noisy nets: exploration by weights that are drawn anew."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class NoisyLinear(nn.Module):
    """A linear layer with factorised Gaussian noise (Fortunato et al. 2018, arXiv:1706.10295 eq. 9 to 11).

        y = (W + S * f(e_out) f(e_in)^T) x + b + s * f(e_out),   f(e) = sgn(e) sqrt|e|

    with learned W, S, b, s and standard normal e, computed as W x + b + f(e_out) * (S (f(e_in) * x) + s): so each row
    of a batch may have noise of its own at no price. Without `noise` it is the plain layer W x + b.

    Args:
        linear: gives W and b.
        sigma: S and s begin as sigma / sqrt(inputs).
    """

    def __init__(self, linear: nn.Linear, sigma: float) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        start = sigma / linear.in_features**0.5
        self.weight, self.bias = linear.weight, linear.bias
        # not by torch.full_like: on torch's meta device it imports sympy, which takes a third of a second
        weight_sigma, bias_sigma = (old.new_full(old.shape, start) for old in (linear.weight, linear.bias))
        self.weight_sigma, self.bias_sigma = nn.Parameter(weight_sigma), nn.Parameter(bias_sigma)
        self.noise: tuple[Tensor, Tensor] | None = None
        """f(e_in) `[rows, inputs]` and f(e_out) `[rows, outputs]`; one row is for all."""

    def forward(self, x: Tensor) -> Tensor:
        """Return y `[B, outputs]` of x `[B, inputs]`."""
        y = functional.linear(x, self.weight, self.bias)
        if self.noise is None:
            return y
        noise_in, noise_out = self.noise
        return y + noise_out * functional.linear(noise_in * x, self.weight_sigma, self.bias_sigma)


class Noise:
    """The noise of all noisy layers of a net; of a net without any, nothing."""

    def __init__(self, net: nn.Module) -> None:
        self.layers = [module for module in net.modules() if isinstance(module, NoisyLinear)]
        self.sizes = [size for layer in self.layers for size in (layer.in_features, layer.out_features)]

    def draw(self, generator: torch.Generator, rows: int = 1) -> None:
        """Draw noise, with `rows` rows; one is for all."""
        if self.layers:
            gauss = torch.randn(rows, sum(self.sizes), generator=generator, device=generator.device)
            parts = (gauss.sign() * gauss.abs().sqrt()).split(self.sizes, dim=1)
            for layer, noise_in, noise_out in zip(self.layers, parts[::2], parts[1::2], strict=True):
                layer.noise = noise_in, noise_out

    def clear(self) -> None:
        """Leave the layers without noise."""
        for layer in self.layers:
            layer.noise = None


def make_noisy(module: nn.Module, sigma: float) -> None:
    """Put a noisy layer in the place of every linear one inside `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, NoisyLinear(child, sigma))
        else:
            make_noisy(child, sigma)
