"""Multilayer perceptron with several heads and tails."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slm_lab.agent.net.build import hidden_layers
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import HydraMLPNet


class Heads(nn.Module):
    """Nets side by side that see the same; what they put out is joined."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, features of all]` of `[B, *obs]`."""
        return torch.cat([head(x) for head in self.heads], dim=1)


def hydra_body(spec: HydraMLPNet, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build heads and body of a HydraMLPNet.

    Args:
        spec: reads hid_layers, hid_layers_activation, init_fn, batch_norm, layer_norm and batch_renorm.
        obs_shape: shape of one observation; of more than one dimension, it is flattened.

    Returns:
        The body and the number of its features.
    """
    heads, units, _ = (_lists(part) for part in spec.hid_layers)
    width = math.prod(obs_shape)
    joined = Heads([nn.Sequential(nn.Flatten(), *hidden_layers(spec, [width, *head])) for head in heads])
    sizes = [sum([width, *head][-1] for head in heads), *units[0]]
    return nn.Sequential(joined, *hidden_layers(spec, sizes)), sizes[-1]


def hydra_tails(spec: HydraMLPNet, features: int, outputs: int) -> tuple[list[list[nn.Module]], list[int]]:
    """Build the layers between the body and each output; return them and the number of features of each tail.

    Raises:
        SpecError: there are several tails, and not one for each output.
    """
    tails = _lists(spec.hid_layers[2])
    if len(tails) not in (1, outputs):
        raise SpecError(
            f"agent.net.hid_layers.2: {len(tails)} tails for {outputs} outputs; give one for each, or one for all"
        )
    sizes = [[features, *units] for units in tails * (outputs // len(tails))]
    return [hidden_layers(spec, widths) for widths in sizes], [widths[-1] for widths in sizes]


def _lists(part: Sequence[int | list[int]]) -> list[list[int]]:
    """Return lists of units; plain units are a single one."""
    several = [units for units in part if isinstance(units, list)]
    return several or [[units for units in part if isinstance(units, int)]]
