"""Nets whose layers a spec lists one by one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.build import init_layers, put_out
from slm_lab.lib.named import did_you_mean
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import TorchArcNet

NOT_HERE = {"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "RReLU"}
"""What draws from torch's global random stream, which no checkpoint restores."""
LAYERS: dict[str, type[nn.Module]] = {
    name: value
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, nn.Module) and name not in NOT_HERE
}
"""Classes that an arc may name."""
SIZED: dict[str, Callable[..., nn.Module]] = {
    "LazyBatchRenorm1d": lambda x, **options: BatchRenorm(x.shape[1], **options),
}
"""Layers of the lab's own that learn their width from what they are first given; torch's do it by themselves."""


class ArcBody(nn.Module):
    """Modules joined by a graph.

    Args:
        parts: the modules.
        graph: `input` and `output`, names, and `modules`: what each takes, in the order in which they run.
    """

    def __init__(self, parts: Mapping[str, nn.Module], graph: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts, self.graph = nn.ModuleDict(parts), graph

    def forward(self, x: Tensor) -> Tensor:
        """Return the graph's output for its input."""
        known = {self.graph["input"]: x}
        for name, inputs in self.graph["modules"].items():
            known[name] = self.parts[name](*(known[given] for given in names(inputs)))
        return known[self.graph["output"]]


def arc_body(spec: TorchArcNet, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body of a TorchArcNet. Every layer is made for what the layers before it put out.

    Args:
        spec: reads arc, and init_fn (with the gain of hid_layers_activation) for linear and convolutional layers.
        obs_shape: shape of one observation.

    Returns:
        The body and the number of its features.

    Raises:
        SpecError: there is no such class, it does not take these arguments, or it does not fit the layer before it.
    """
    arc: Mapping[str, Any] = spec.arc or {}
    graph = arc["graph"]
    # two rows: the norms of a batch need more than one
    known = {graph["input"]: torch.zeros(2, *obs_shape)}
    parts: dict[str, nn.Module] = {}
    for name, inputs in graph["modules"].items():
        ((cls, options),) = arc["modules"][name].items()
        given = [known[before] for before in names(inputs)]
        parts[name], known[name] = _make(cls, options, given, f"agent.net.arc.modules.{name}")
    output = known[graph["output"]]
    if output.dim() != 2:
        raise SpecError(
            f"agent.net.arc.graph.output: {graph['output']} puts out {tuple(output.shape[1:])} for an observation of "
            f"{obs_shape}, and heads need a row of numbers; end it with Flatten"
        )
    body = ArcBody(parts, graph)
    init_layers(body, spec.init_fn, spec.hid_layers_activation)
    return body, output.shape[1]


def names(inputs: str | Sequence[str]) -> Sequence[str]:
    """Return the inputs of a module as a list: a single one may stand alone."""
    return [inputs] if isinstance(inputs, str) else inputs


def _make(cls: str, options: Any, inputs: Sequence[Tensor], place: str) -> tuple[nn.Module, Tensor]:
    """Build one module; return it with what it puts out."""
    if cls == "Sequential":
        layers, (x,) = [], inputs
        for index, entry in enumerate(options):
            ((name, arguments),) = entry.items() if isinstance(entry, Mapping) else [(entry, None)]
            layer, x = _make(name, arguments, [x], f"{place}.Sequential.{index}")
            layers.append(layer)
        return nn.Sequential(*layers), x
    if cls in SIZED:
        layer = _built(lambda **given: SIZED[cls](inputs[0], **given), options, f"{place}.{cls}")
    elif cls in LAYERS:
        layer = _built(LAYERS[cls], options, f"{place}.{cls}")
    else:
        raise SpecError(f"{place}: {cls!r} is no layer that can stand here{did_you_mean(cls, [*SIZED, *LAYERS])}")
    try:
        return layer, put_out(layer, *inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        shapes = " and ".join(str(tuple(x.shape[1:])) for x in inputs)
        raise SpecError(f"{place}.{cls}: does not take {shapes}: {' '.join(str(error).split())}") from error


def _built(make: Callable[..., nn.Module], options: Any, place: str) -> nn.Module:
    try:
        return make(*options) if isinstance(options, list) else make(**(options or {}))
    except TypeError as error:
        raise SpecError(f"{place}: {' '.join(str(error).split())}") from error
