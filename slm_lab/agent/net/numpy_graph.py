"""A gradient as a program of numpy: what torch's tracer sees of a loss and of its backward pass, written out in Python.

Of a small net's gradient step, torch spends most on the way to its kernels, and its library for products is slow at
small ones. numpy takes a third of the time, and to write the program takes a fraction of a second where a compiler
takes ten.
"""

import operator
import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from slm_lab.agent.net.fallback import NotInNumpy

_aten: Any = torch.ops.aten
_MORE = [_aten.elu, _aten.hardtanh, _aten.leaky_relu, _aten.native_layer_norm, _aten.native_layer_norm_backward]
_FOUND: Any = {**core_aten_decompositions(), **get_decompositions(_MORE)}
_SIMPLER = {name: decompose for name, decompose in _FOUND.items() if not name._schema.is_mutable}
"""How torch writes operations in simpler ones. Those in place stay as they are, and are seen to by `_in_new_place`."""


def trace(function: Callable[..., Any], inputs: Sequence[Tensor], differentiable: int) -> fx.GraphModule:
    """Return the operations of `function`, which may take gradients, as a graph without any of torch's autograd.

    Args:
        function: of as many tensors, to a sequence of tensors, some of them None.
        inputs: examples.
        differentiable: how many of them, from the first on, it takes gradients with respect to.

    Raises:
        NotInNumpy: something is changed in place that others look at.
        Exception: of any kind, where the function looks at a number, or at a tensor that is not among its inputs.
    """
    detached = [x.detach() for x in inputs]
    leaves = [x.requires_grad_() for x in detached[:differentiable]]
    # fake tensors: a look at a number, which would become a constant, is an error
    traced = make_fx(function, decomposition_table=_SIMPLER, tracing_mode="fake")
    module = traced(*leaves, *detached[differentiable:])
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem and node.target._schema.is_mutable:
            node.target = _in_new_place(node)
    module.graph.eliminate_dead_code()
    return module


def _in_new_place(node: fx.Node) -> Any:
    """Return the operation that comes to what one in place leaves behind, where nothing else looks at that place."""
    target: Any = node.target
    place: Any = node.args[0]
    own = place.op == "call_function" and not _is_view(place)
    if not own or any(user > node or (user is not node and _is_view(user)) for user in place.users):
        raise NotInNumpy(f"{target}, in place")
    name, overload = target._schema.name.removeprefix("aten::"), target._overloadname
    return getattr(getattr(_aten, name.removesuffix("_"), None), overload, target)


def _is_view(node: fx.Node) -> bool:
    target: Any = node.target
    return any(result.alias_info is not None for result in target._schema.returns)


class NumpyProgram:
    """A graph of `trace`, written as one Python function of arrays.

    It is written by computing an example: shape and type of every value then tell where numpy would count in float64,
    and what a broadcast may be left to.

    Args:
        graph: the graph; its outputs are a sequence of tensors, some of them None.
        inputs: examples.

    Attributes:
        example: values by name.
        source: the function.
        run: arrays -> list of arrays, as the graph's inputs and outputs.

    Raises:
        NotInNumpy: there is an operation in it that is not translated.
    """

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[np.ndarray]) -> None:
        self._scope = dict(_FUNCTIONS)
        self.example: dict[str, Any] = {f"x{index}": value for index, value in enumerate(inputs)}
        self._known: dict[str, str] = {}  # expression -> name of its value
        self._name: dict[fx.Node, str] = {}
        arguments = list(self.example)
        unnamed = iter(arguments)
        results: list[str] = []
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                self._name[node] = next(unnamed)
            elif node.op == "get_attr":
                self._name[node] = self.constant(getattr(graph, node.target).numpy(force=True))
            elif node.op == "call_function":
                self._name[node] = self._call(node)
            else:
                results = ["None" if out is None else self._whole(out) for out in node.args[0]]
        lines = [f"def program({', '.join(arguments)}):", *self._body(results), f"return [{', '.join(results)}]"]
        self.source = "\n    ".join(lines)
        exec(self.source, self._scope)  # noqa: S102 - it has nothing but what the table below writes
        self.run: Callable[..., list[Any]] = self._scope["program"]

    def _call(self, node: fx.Node) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotInNumpy(f"{node.target}, which draws numbers")
        target: Any = node.target
        if not node.all_input_nodes:
            return self.constant(target(*node.args, **node.kwargs))
        if target not in _TABLE:
            raise NotInNumpy(str(node.target))
        value = node.meta["val"]
        if node.target in _VIEWS and self._shape(node.all_input_nodes[0]) == ():
            return self._name[node.all_input_nodes[0]]  # the same number everywhere
        args = [self._argument(arg, node.target not in _ELEMENTWISE) for arg in node.args]
        expression = _TABLE[node.target](self, value, *args, **node.kwargs)
        if not isinstance(expression, str):  # of several results
            return expression
        name = self.emit(expression)
        dtype = np.dtype(str(value.dtype).removeprefix("torch."))
        return name if self.example[name].dtype == dtype else self.emit(f"{name}.astype('{dtype}')")

    def _argument(self, arg: Any, whole: bool) -> Any:
        if isinstance(arg, list | tuple):
            return [self._argument(entry, whole) for entry in arg]
        if isinstance(arg, float):
            return self.constant(np.float32(arg))
        if not isinstance(arg, fx.Node):
            return arg
        return self._whole(arg) if whole else self._name[arg]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return self.example[self._name[node]].shape

    def _whole(self, node: fx.Node) -> str:
        """Return the name of a value in its full shape: what is the same along an axis has one entry there so far."""
        shape = tuple(node.meta["val"].shape)
        return self._name[node] if self._shape(node) == shape else self.emit(f"full({shape}, {self._name[node]})")

    def constant(self, value: Any) -> str:
        """Return a name for `value`."""
        name = f"c{len(self.example)}"
        self._scope[name] = self.example[name] = np.asarray(value)[()]
        return name

    def emit(self, expression: str) -> str:
        """Return the name of what `expression` comes to, which a line computes unless it is known."""
        if expression in self.example:
            return expression
        if expression not in self._known:
            value = eval(expression, self._scope, self.example)  # noqa: S307 - as above
            if not re.search(r"\b[vx]\d", expression):
                return self.constant(value)
            name = self._known[expression] = f"v{len(self._known)}"
            self.example[name] = value
        return self._known[expression]

    def _body(self, results: list[str]) -> list[str]:
        """Return a line for every value, and one that lets go of it after its last use: memory in the cache is fast."""
        lines: list[str] = []
        needed = set(results)
        for expression, name in reversed(self._known.items()):
            if name in needed:
                operands = set(re.findall(r"\bv\d+\b", expression))
                if last := sorted(operands - needed):
                    lines.append(f"del {', '.join(last)}")
                lines.append(f"{name} = {expression}")
                needed |= operands
        return lines[::-1]


# --- what becomes of torch's operations: (program, the result as torch describes it, *arguments) -> expression, or the
# names of several results

Translation = Callable[..., Any]
SHORT = 4
"""Entries along the last axis up to which a reduction is written out: numpy goes through the rows one by one."""


def _infix(sign: str) -> Translation:
    def combined(program: NumpyProgram, _value: Tensor, left: Any, right: Any) -> str:
        by_one = sign in "*/" and isinstance(right, str) and right[0] == "c" and np.all(program.example[right] == 1)
        return left if by_one else f"{left} {sign} {right}"

    return combined


def _function(name: str) -> Translation:
    return lambda _program, _value, *args: f"{name}({', '.join(map(str, args))})"


def _same(_program: NumpyProgram, _value: Tensor, x: str, *_: Any, **__: Any) -> str:
    return x


def _reshaped(program: NumpyProgram, value: Tensor, x: str, *_: Any) -> str:
    return x if program.example[x].shape == value.shape else f"{x}.reshape({tuple(value.shape)})"


def _permuted(_program: NumpyProgram, _value: Tensor, x: str, order: list[int]) -> str:
    return f"{x}.transpose({tuple(order)})"


def _product(program: NumpyProgram, _value: Tensor, left: str, right: str) -> str:
    return f"{left} {'*' if program.example[left].shape[-1] == 1 else '@'} {right}"


def _layer(program: NumpyProgram, value: Tensor, bias: str, x: str, weight: str) -> str:
    return f"{program.emit(_product(program, value, x, weight))} + {bias}"


def _filled(program: NumpyProgram, _value: Tensor, _like: str, number: Any, **_: Any) -> str:
    return number if isinstance(number, str) else program.constant(np.float32(number))


def _chosen(program: NumpyProgram, _value: Tensor, condition: str, left: str, right: str) -> str:
    # half the time where there is nothing to choose, as behind a ReLU
    for nothing, other, sign in ((left, right, "~"), (right, left, "")):
        if nothing[0] == "c" and not np.any(program.example[nothing]):
            return f"{other} * {sign}{condition}"
    return f"where({condition}, {left}, {right})"


def _clamped(_program: NumpyProgram, _value: Tensor, x: str, low: Any = None, high: Any = None) -> str:
    x = x if low is None else f"maximum({x}, {low})"
    return x if high is None else f"minimum({x}, {high})"


def _reduction(name: str) -> Translation:
    def reduced(program: NumpyProgram, value: Tensor, x: str, axes: Any = (), keep: bool = False) -> str:
        given, shape = axes if isinstance(axes, list) else [axes], program.example[x].shape
        if given == [0] and name == "add" and len(shape) == 2:
            ones = program.constant(np.ones(shape[0], program.example[x].dtype))
            return f"{ones}.dot({x}).reshape({tuple(value.shape)})"  # in a fourth of the time
        if given in ([-1], [len(shape) - 1]) and shape[-1] <= SHORT:
            first, *others = (f"{x}[..., {i}:{i + 1}]" if keep else f"{x}[..., {i}]" for i in range(shape[-1]))
            return reduce(lambda so_far, column: f"{name}({so_far}, {column})", others, first)
        return f"{name}.reduce({x}, {tuple(given) if axes else None}, keepdims={keep})"

    return reduced


_summed = _reduction("add")


def _mean(program: NumpyProgram, value: Tensor, x: str, axes: Any = (), keep: bool = False) -> str:
    total = program.emit(_summed(program, value, x, axes, keep))
    return f"{total} * {program.constant(np.float32(program.example[total].size / program.example[x].size))}"


def _variance(
    program: NumpyProgram, value: Tensor, x: str, axes: Any = (), correction: float = 1, keepdim: bool = False
) -> str:
    deviation = program.emit(f"{x} - {program.emit(_mean(program, value, x, axes or (), True))}")
    total = program.emit(_summed(program, value, program.emit(f"{deviation} * {deviation}"), axes or (), keepdim))
    count = program.example[x].size / program.example[total].size - correction
    return f"{total} / {program.constant(np.float32(count))}"


def _variance_and_mean(program: NumpyProgram, value: Any, x: str, axes: Any = (), **keys: Any) -> list[str]:
    mean = _mean(program, value[1], x, axes or (), keys.get("keepdim", False))
    return [program.emit(_variance(program, value[0], x, axes, **keys)), program.emit(mean)]


def _log_softmax(program: NumpyProgram, value: Tensor, x: str, axis: int, _half: bool) -> str:
    shifted = program.emit(f"{x} - {_reduction('maximum')(program, value, x, [axis], True)}")
    return f"{shifted} - log({_summed(program, value, program.emit(f'exp({shifted})'), [axis], True)})"


def _softmax(program: NumpyProgram, value: Tensor, x: str, axis: int, _half: bool) -> str:
    power = program.emit(f"exp({x} - {_reduction('maximum')(program, value, x, [axis], True)})")
    return f"{power} / {program.emit(_summed(program, value, power, [axis], True))}"


def _power(program: NumpyProgram, _value: Tensor, x: str, exponent: Any) -> str:
    easy = {1: x, 2: f"{x} * {x}"}
    return easy.get(program.example.get(exponent, exponent), f"{x} ** {exponent}")


def _selected(_program: NumpyProgram, _value: Tensor, x: str, axis: int, index: int) -> str:
    return f"{x}[{':, ' * axis}{index}]"


def _sliced(
    _program: NumpyProgram, _value: Tensor, x: str, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    return f"{x}[{':, ' * axis}{start or 0}:{end}:{step}]"


def _put(
    program: NumpyProgram,
    _value: Tensor,
    x: str,
    part: str,
    axis: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> str:
    return f"put({x}, ({'slice(None), ' * (axis % program.example[x].ndim)}slice({start}, {end}, {step})), {part})"


def _split(program: NumpyProgram, _value: Any, x: str, sizes: list[int], axis: int = 0) -> list[str]:
    axis %= program.example[x].ndim
    ends = np.cumsum(sizes)
    return [program.emit(f"{x}[{':, ' * axis}{end - size}:{end}]") for end, size in zip(ends, sizes, strict=True)]


def _joined(_program: NumpyProgram, _value: Tensor, parts: list[str], axis: int = 0) -> str:
    return f"concatenate(({', '.join(parts)},), {axis})"


def _gathered(program: NumpyProgram, _value: Tensor, x: str, axis: int, index: str) -> str:
    return f"{x}[{_places(program, axis, index)}]"


def _scattered(program: NumpyProgram, _value: Tensor, x: str, axis: int, index: str, source: str) -> str:
    if program.example[index].shape[axis] != 1:
        raise NotInNumpy("scatter_add of several numbers at once")
    onto_nothing = x[0] == "c" and not np.any(program.example[x])
    return f"{'put' if onto_nothing else 'added'}({x}, ({_places(program, axis, index)}), {source})"


def _places(program: NumpyProgram, axis: int, index: str) -> str:
    """Return an index that takes `index` along an axis, and every entry along the others."""
    shape = program.example[index].shape
    grid = [program.constant(np.arange(size).reshape(_along(i, len(shape)))) for i, size in enumerate(shape)]
    grid[axis] = index
    return ", ".join("0" if size == 1 and name != index else name for name, size in zip(grid, shape, strict=True))


def _along(axis: int, dims: int) -> list[int]:
    return [-1 if i == axis else 1 for i in range(dims)]


def added(x: np.ndarray, place: Any, more: np.ndarray) -> np.ndarray:
    """Return `x` with `more` added at a place."""
    result = x.copy()
    result[place] += more
    return result


def put(x: np.ndarray, place: Any, part: np.ndarray) -> np.ndarray:
    """Return `x` with `part` at a place."""
    result = x.copy()
    result[place] = part
    return result


_NAMES = ("exp", "expm1", "isnan", "log", "log1p", "maximum", "minimum", "sign", "sqrt", "tanh")
_OTHER_NAMES = ("absolute", "add", "concatenate", "float32", "full", "inf", "invert", "nan", "negative", "where")
_FUNCTIONS: dict[str, Any] = {
    **{name: getattr(np, name) for name in (*_NAMES, *_OTHER_NAMES)},
    "added": added,
    "put": put,
}
_INFIX = {
    "+": (_aten.add.Tensor, _aten.add.Scalar),
    "-": (_aten.sub.Tensor, _aten.sub.Scalar),
    "*": (_aten.mul.Tensor, _aten.mul.Scalar),
    "/": (_aten.div.Tensor, _aten.div.Scalar),
    "%": (_aten.remainder.Tensor, _aten.remainder.Scalar),
    "==": (_aten.eq.Tensor, _aten.eq.Scalar),
    "!=": (_aten.ne.Tensor, _aten.ne.Scalar),
    "<": (_aten.lt.Tensor, _aten.lt.Scalar),
    "<=": (_aten.le.Tensor, _aten.le.Scalar),
    ">": (_aten.gt.Tensor, _aten.gt.Scalar),
    ">=": (_aten.ge.Tensor, _aten.ge.Scalar),
    "&": (_aten.logical_and.default, _aten.bitwise_and.Tensor),
    "|": (_aten.logical_or.default, _aten.bitwise_or.Tensor),
}
_ELEMENTWISE: dict[Any, Translation] = {
    **{operation: _infix(sign) for sign, operations in _INFIX.items() for operation in operations},
    **{getattr(_aten, name).default: _function(name) for name in _NAMES},
    _aten.abs.default: _function("absolute"),
    _aten.alias.default: _same,
    _aten.bitwise_not.default: _function("invert"),
    _aten.clamp.default: _clamped,
    _aten.clamp.Tensor: _clamped,
    _aten.clone.default: _same,
    _aten.expand.default: _same,
    _aten.full_like.default: _filled,
    _aten.logical_not.default: _function("invert"),
    _aten.masked_fill.Scalar: lambda program, value, x, mask, filler: _chosen(
        program, value, mask, _filled(program, value, x, filler), x
    ),
    _aten.neg.default: _function("negative"),
    _aten.pow.Tensor_Scalar: _power,
    _aten.relu.default: lambda program, _value, x: f"maximum({x}, {program.constant(np.float32(0))})",
    _aten.rsqrt.default: lambda _program, _value, x: f"1 / sqrt({x})",
    _aten.sigmoid.default: lambda _program, _value, x: f"1 / (1 + exp(-{x}))",
    _aten.where.self: _chosen,
    operator.getitem: lambda _program, _value, parts, index: parts[index],
    _aten._to_copy.default: _same,  # the type is seen to afterwards
}
_VIEWS: dict[Any, Translation] = {
    _aten.permute.default: _permuted,
    _aten.squeeze.dims: _reshaped,
    _aten.unsqueeze.default: _reshaped,
    _aten.view.default: _reshaped,
}
_TABLE: dict[Any, Translation] = {
    **_ELEMENTWISE,
    **_VIEWS,
    _aten._log_softmax.default: _log_softmax,
    _aten._softmax.default: _softmax,
    _aten.addmm.default: _layer,
    _aten.argmax.default: lambda _program, _value, x, axis=None, keep=False: f"{x}.argmax({axis}, keepdims={keep})",
    _aten.amax.default: _reduction("maximum"),
    _aten.amin.default: _reduction("minimum"),
    _aten.bmm.default: _product,
    _aten.cat.default: _joined,
    _aten.gather.default: _gathered,
    _aten.mean.default: _mean,
    _aten.mean.dim: _mean,
    _aten.mm.default: _product,
    _aten.scatter_add.default: _scattered,
    _aten.select.int: _selected,
    _aten.slice.Tensor: _sliced,
    _aten.slice_scatter.default: _put,
    _aten.split_with_sizes.default: _split,
    _aten.sum.default: _summed,
    _aten.sum.dim_IntList: _summed,
    _aten.var.correction: _variance,
    _aten.var_mean.correction: _variance_and_mean,
}
