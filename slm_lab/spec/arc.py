"""Arcs: the layers of a TorchArcNet and the graph that joins them, written out in a spec or in a file of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_lab.spec.errors import SpecError
from slm_lab.spec.model import problem, unknown_text
from slm_lab.spec.parse import read_file

NETS = ("net", "critic_net")


def inline_arcs(raw: Mapping[str, Any], folder: Path) -> None:
    """Put the arc that a file holds in the place of each `arc_file` of a raw spec: its file alone says it all.

    Args:
        raw: the spec.
        folder: where the spec's file is; files are looked for there and in the working directory.

    Raises:
        SpecError: there is no such file, it cannot be read, or an arc is given besides.
    """
    agent = raw.get("agent")
    nets = {part: agent.get(part) for part in NETS} if isinstance(agent, Mapping) else {}
    for part, net in nets.items():
        if not isinstance(net, dict):
            continue
        for key in [key for key in net if key.endswith("arc_file")]:
            file, arc = Path(str(net.pop(key))), key.removesuffix("_file")
            if arc in net:
                raise SpecError(f"agent.{part}.{key}: there is {arc} as well; give one of them")
            net[arc] = read_file(folder / file if (folder / file).is_file() else file)


def check_arc(arc: Mapping[str, Any]) -> None:
    """Raise if an arc does not have the form of one, or its graph names what is not there."""
    modules, graph = (arc.get(key) for key in ("modules", "graph"))
    if not isinstance(modules, Mapping) or not isinstance(graph, Mapping):
        raise problem("arc", "must be an object with modules and graph")
    for name, module in modules.items():
        if not isinstance(module, Mapping) or len(module) != 1:
            raise problem(f"arc.modules.{name}", 'must be {class: arguments}, e.g. {"Sequential": [{"ReLU": {}}]}')
    source, steps, output = graph.get("input"), graph.get("modules"), graph.get("output")
    if not isinstance(source, str) or not isinstance(steps, Mapping) or not isinstance(output, str):
        raise problem("arc.graph", "must be an object with input (a name), modules (name: inputs) and output (a name)")
    _check_graph(modules, source, steps, output)


def _check_graph(modules: Mapping[str, Any], source: str, steps: Mapping[str, Any], output: str) -> None:
    known = [source]
    for name, inputs in steps.items():
        if name not in modules:
            raise problem(f"arc.graph.modules.{name}", unknown_text("no such module", name, modules))
        for given in inputs if isinstance(inputs, list) else [inputs]:
            if given not in known:
                text = f"{given!r} is neither the input nor a module before this one"
                raise problem(f"arc.graph.modules.{name}", unknown_text(text, given, known))
        known.append(name)
    if output not in known:
        raise problem("arc.graph.output", unknown_text("no such module in the graph", output, known))
    for name in modules:
        if name not in steps:
            raise problem(f"arc.modules.{name}", "the graph does not use it; remove it")
