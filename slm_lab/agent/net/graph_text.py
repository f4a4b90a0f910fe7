"""Graphs of torch's operations as plain values, for JSON."""

import operator
from typing import Any

import torch
from torch import fx

_NAMED = (torch.dtype, torch.layout, torch.memory_format)


def as_plain(graph: fx.GraphModule) -> dict[str, Any]:
    """Return a graph as dictionaries, lists, texts and numbers.

    Raises:
        TypeError: an operation takes what is none of these, nor a tensor, a dtype, a device or a layout.
    """
    constants = {name: [str(x.dtype)[6:], list(x.shape), x.flatten().tolist()] for name, x in graph.named_buffers()}
    nodes = [
        [node.name, node.op, _name(node.target), _plain(list(node.args)), _plain(dict(node.kwargs))]
        for node in graph.graph.nodes
    ]
    return {"constants": constants, "nodes": nodes}


def from_plain(plain: dict[str, Any]) -> fx.GraphModule:
    """Return the graph that `as_plain` was given."""
    constants = {
        name: torch.tensor(numbers, dtype=getattr(torch, dtype)).reshape(shape)
        for name, (dtype, shape, numbers) in plain["constants"].items()
    }
    graph, known = fx.Graph(), dict[str, fx.Node]()
    for name, op, target, args, kwargs in plain["nodes"]:
        called = _called(target) if op == "call_function" else target
        known[name] = graph.create_node(op, called, tuple(_value(args, known)), _value(kwargs, known), name)
    return fx.GraphModule(constants, graph)


def _name(target: Any) -> str:
    return "getitem" if target is operator.getitem else str(target)


def _called(name: str) -> Any:
    if name == "getitem":
        return operator.getitem
    namespace, operation, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), operation), overload)


def _plain(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {"dict": {key: _plain(part) for key, part in value.items()}}
    if isinstance(value, _NAMED):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} in a graph")


def _value(plain: Any, known: dict[str, fx.Node]) -> Any:
    if isinstance(plain, list):
        return [_value(part, known) for part in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, what),) = plain.items()
    if kind == "node":
        return known[what]
    if kind == "dict":
        return {key: _value(part, known) for key, part in what.items()}
    return torch.device(what) if kind == "device" else getattr(torch, what)
