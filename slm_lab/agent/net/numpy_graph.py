"""A gradient by numpy: the operations of a loss and of its backward pass, as a graph of numpy's functions.

Of a small net's gradient step, torch spends most on the way to its kernels, and its library for products is slow at
small ones. numpy takes a third of the time, and the graph is there in a fraction of a second, where a compiler takes
ten.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions

from slm_lab.agent.net.fallback import NotInNumpy
from slm_lab.agent.net.recorder import Recorder, record

_aten: Any = torch.ops.aten
_MORE = [_aten.elu, _aten.hardtanh, _aten.leaky_relu, _aten.native_layer_norm, _aten.native_layer_norm_backward]
_FOUND: Any = {**core_aten_decompositions(), **get_decompositions(_MORE)}
_SIMPLER = {name: do for name, do in _FOUND.items() if not name._schema.is_mutable}
"""How torch writes operations in simpler ones. Those in place stay as they are, and are seen to by `_in_new_place`."""


def trace(function: Callable[..., Any], inputs: Sequence[Tensor], differentiable: int) -> fx.GraphModule:
    """Return what `record` does, in simpler operations where torch knows how, none of which is in place.

    Raises:
        NotInNumpy: something is changed in place that others look at.
        Exception: as `record`.
    """
    traced = record(function, inputs, differentiable, _InSimplerOnes)
    for node in traced.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem and node.target._schema.is_mutable:
            node.target = _in_new_place(node)
    traced.graph.eliminate_dead_code()
    return traced


class _InSimplerOnes(Recorder):
    """Writes down what is translated here as it is, and the rest in simpler operations; every node keeps its result."""

    def note(self, found: Any, node: fx.Node) -> None:
        """Know what `node` comes to."""
        node.meta["val"] = found
        super().note(found, node)

    def simpler(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry out `func` by simpler operations."""
        if func in _TABLE:
            return NotImplemented
        with self:  # operations within are seen as well
            return _SIMPLER[func](*args, **kwargs) if func in _SIMPLER else func.decompose(*args, **kwargs)


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
    """A graph of `trace` with numpy's functions in the place of torch's; torch.fx makes one Python function of it.

    It is made by computing an example: shape and type of every value then tell where numpy would count in float64, and
    what a broadcast may be left to.

    Args:
        traced: the graph; its outputs are a sequence of tensors, some of them None.
        inputs: examples.

    Attributes:
        run: arrays -> list of arrays, as the graph's inputs and outputs.

    Raises:
        NotInNumpy: there is an operation in it that is not translated.
        Exception: of any kind, where an operation is called in a way that is not translated.
    """

    def __init__(self, traced: fx.GraphModule, inputs: Sequence[np.ndarray]) -> None:
        self._graph = fx.Graph()
        self._constants: dict[str, Any] = {}
        self._value: dict[fx.Node, Any] = {}  # in the example
        self._known: dict[Any, fx.Node] = {}  # constants, and what is called with what
        self._mine: dict[fx.Node, Any] = {}  # of torch's nodes
        examples = iter(inputs)
        results: list[fx.Node | None] = []
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                self._mine[node] = self._graph.placeholder(node.name)
                self._value[self._mine[node]] = next(examples)
            elif node.op == "get_attr":
                self._mine[node] = self.constant(getattr(traced, node.target).numpy(force=True))
            elif node.op == "call_function":
                self._mine[node] = self._translate(node)
            else:
                results = [None if out is None else self._whole(out) for out in node.args[0]]
        self._graph.output(results)
        self._graph.eliminate_dead_code()
        self.run: Callable[..., list[Any]] = fx.GraphModule(self._constants, self._graph).forward
        # by now the examples are of no use, and large
        self._value.clear()
        self._known.clear()
        self._mine.clear()

    def of(self, node: fx.Node) -> Any:
        """Return the value of `node` in the example."""
        return self._value[node]

    def number(self, node: Any) -> Any:
        """Return what a constant is, None for what is computed."""
        return (self.of(node) if node.op == "get_attr" else None) if isinstance(node, fx.Node) else node

    def constant(self, value: Any) -> fx.Node:
        """Return a node for `value`, the same one for the same value."""
        found = np.asarray(value)
        known = found.dtype, found.shape, found.tobytes()
        if known not in self._known:
            name = f"c{len(self._constants)}"
            self._constants[name] = found[()]
            self._known[known] = self._graph.get_attr(name)
            self._value[self._known[known]] = found[()]
        return self._known[known]

    def call(self, function: Callable[..., Any] | str, *args: Any, **keys: Any) -> fx.Node:
        """Return a node for a call, the same one for the same call; a name is that of an array's method."""
        known = function, repr(args), repr(keys)
        if known not in self._known:
            run: Any = function
            values = fx.map_arg(args, self.of)
            if isinstance(function, str):
                run, values = getattr(values[0], function), values[1:]
            value = run(*values, **keys)
            used: list[fx.Node] = []
            fx.map_arg(args, used.append)
            if all(node.op == "get_attr" for node in used):
                self._known[known] = self.constant(value)
            else:
                make: Any = self._graph.call_method if isinstance(function, str) else self._graph.call_function
                self._known[known] = make(function, args, keys)
                self._value[self._known[known]] = value
        return self._known[known]

    def _translate(self, node: fx.Node) -> Any:
        target: Any = node.target
        if not node.all_input_nodes:
            return self.constant(target(*node.args, **node.kwargs))
        if target not in _TABLE:
            raise NotInNumpy(str(target))
        meta = node.meta["val"]
        if target in _VIEWS and self.of(self._mine[node.all_input_nodes[0]]).shape == ():
            return self._mine[node.all_input_nodes[0]]  # the same number everywhere
        args = [self._argument(arg, target not in _ELEMENTWISE) for arg in node.args]
        found = _TABLE[target](self, meta, *args, **node.kwargs)
        if not isinstance(found, fx.Node):  # several results
            return found
        dtype = str(meta.dtype).removeprefix("torch.")
        return found if self.of(found).dtype == np.dtype(dtype) else self.call("astype", found, dtype)

    def _argument(self, arg: Any, whole: bool) -> Any:
        if isinstance(arg, list | tuple):
            return tuple(self._argument(entry, whole) for entry in arg)
        if isinstance(arg, float):
            return self.constant(np.float32(arg))
        if not isinstance(arg, fx.Node):
            return arg
        return self._whole(arg) if whole else self._mine[arg]

    def _whole(self, node: fx.Node) -> fx.Node:
        """Return a value in its full shape: what is the same along an axis has one entry there so far."""
        mine, shape = self._mine[node], tuple(node.meta["val"].shape)
        return mine if self.of(mine).shape == shape else self.call(np.full, shape, mine)


# --- what torch has and numpy has not


def sum_over(x: np.ndarray, axes: Any, keep: bool) -> Any:
    """Add up over `axes`; None are all."""
    return np.add.reduce(x, axes, keepdims=keep)


def max_over(x: np.ndarray, axes: Any, keep: bool) -> Any:
    """Return the largest over `axes`; None are all."""
    return np.maximum.reduce(x, axes, keepdims=keep)


def min_over(x: np.ndarray, axes: Any, keep: bool) -> Any:
    """Return the smallest over `axes`; None are all."""
    return np.minimum.reduce(x, axes, keepdims=keep)


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    """Return log(1 + exp(x))."""
    return np.where(x > 20, x, np.log1p(np.exp(x)))


def where_above(gradient: np.ndarray, x: np.ndarray, least: float) -> np.ndarray:
    """Return a gradient where `x` is above a threshold, and 0 elsewhere; all of one shape."""
    # half the time of `where`; it differs for infinite gradients, and those that are no number
    return gradient * (x > least)


def add_flat(x: np.ndarray, places: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return `x` with `more` added at places of `x` flattened, each of them once."""
    result = x.copy()
    result.reshape(-1)[places] += more
    return result


def put_flat(x: np.ndarray, places: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return `x` with `part` at places of `x` flattened."""
    result = x.copy()
    result.put(places, part)
    return result


def put(x: np.ndarray, place: Any, part: np.ndarray) -> np.ndarray:
    """Return `x` with `part` at a place."""
    result = x.copy()
    result[place] = part
    return result


# --- what becomes of torch's operations: (program, the result as torch describes it, *arguments) -> node, or several

Translation = Callable[..., Any]
SHORT = 4
"""Entries along the last axis up to which a reduction is written out: numpy goes through the rows one by one."""


def _by(function: Callable[..., Any]) -> Translation:
    return lambda program, _meta, *args: program.call(function, *args)


def _scaled(function: Callable[..., Any]) -> Translation:
    def scaled(program: NumpyProgram, _meta: Tensor, x: fx.Node, factor: Any) -> fx.Node:
        number = program.number(factor)
        return x if number is not None and np.all(number == 1) else program.call(function, x, factor)

    return scaled


def _same(_program: NumpyProgram, _meta: Tensor, x: fx.Node, *_: Any, **__: Any) -> fx.Node:
    return x


def _reshaped(program: NumpyProgram, meta: Tensor, x: fx.Node, *_: Any) -> fx.Node:
    return _in_shape(program, x, tuple(meta.shape))


def _in_shape(program: NumpyProgram, x: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    x = cast("Any", x.args[0]) if x.target == "reshape" else x  # the shape in between does not matter
    return x if program.of(x).shape == shape else program.call("reshape", x, shape)


def _permuted(program: NumpyProgram, _meta: Tensor, x: fx.Node, order: tuple[int, ...]) -> fx.Node:
    order = tuple(axis % len(order) for axis in order)
    if x.target == "transpose":
        x, before = cast("Any", x.args)
        order = tuple(before[axis] for axis in order)
    return x if order == tuple(sorted(order)) else program.call("transpose", x, order)


def _product(program: NumpyProgram, _meta: Tensor, left: fx.Node, right: fx.Node) -> fx.Node:
    shape = program.of(left).shape
    if len(shape) == 2:  # there `dot` is the fastest
        return program.call("dot", left, right)
    return program.call(operator.mul if shape[-1] == 1 else operator.matmul, left, right)


def _layer(program: NumpyProgram, meta: Tensor, bias: fx.Node, x: fx.Node, weight: fx.Node) -> fx.Node:
    return program.call(operator.add, _product(program, meta, x, weight), bias)


def _filled(program: NumpyProgram, _meta: Tensor, _like: fx.Node, number: Any, **_: Any) -> fx.Node:
    return number if isinstance(number, fx.Node) else program.constant(np.float32(number))


def _clamped(program: NumpyProgram, _meta: Tensor, x: fx.Node, low: Any = None, high: Any = None) -> fx.Node:
    x = x if low is None else program.call(np.maximum, x, _everywhere(program, x, low))
    return x if high is None else program.call(np.minimum, x, _everywhere(program, x, high))


def _everywhere(program: NumpyProgram, x: fx.Node, limit: Any) -> Any:
    """Return a number in the shape of `x`: of two arrays, numpy finds the larger numbers in a fifth of the time."""
    number, like = program.number(limit), program.of(x)
    known = number is not None and np.ndim(number) == 0 and like.dtype == np.float32
    return program.constant(np.full(like.shape, number, np.float32)) if known else limit


def _reduction(function: np.ufunc, over: Callable[..., Any]) -> Translation:
    def reduced(program: NumpyProgram, _meta: Any, x: fx.Node, axes: Any = (), keep: bool = False) -> fx.Node:
        given, shape = axes if isinstance(axes, tuple | None) else (axes,), program.of(x).shape
        of_floats = program.of(x).dtype == np.float32  # the sum of two truths would be a truth
        everything, rows = bool(not given and shape), given == (0,) and len(shape) == 2
        if (everything or rows) and function is np.add and of_floats:
            x = _in_shape(program, x, (program.of(x).size,)) if everything else x
            ones = program.constant(np.ones(len(program.of(x)), np.float32))
            total = program.call("dot", ones, x)  # in a fourth of the time
            return _in_shape(program, total, (1, shape[1]) if rows else (1,) * len(shape)) if keep else total
        if given in ((-1,), (len(shape) - 1,)) and shape[-1] <= SHORT and of_floats:
            columns = (slice(i, i + 1) if keep else i for i in range(shape[-1]))
            parts = [program.call(operator.getitem, x, (..., column)) for column in columns]
            return reduce(lambda so_far, part: program.call(function, so_far, part), parts)
        return program.call(over, x, given or None, keep)

    return reduced


_summed = _reduction(np.add, sum_over)
_highest = _reduction(np.maximum, max_over)
_lowest = _reduction(np.minimum, min_over)


def _mean(program: NumpyProgram, meta: Any, x: fx.Node, axes: Any = (), keep: bool = False) -> fx.Node:
    total = _summed(program, meta, x, axes, keep)
    share = np.float32(program.of(total).size / program.of(x).size)
    return program.call(operator.mul, total, program.constant(share))


def _variance(
    program: NumpyProgram, meta: Any, x: fx.Node, axes: Any = (), correction: float = 1, keepdim: bool = False
) -> fx.Node:
    deviation = program.call(operator.sub, x, _mean(program, meta, x, axes, True))
    total = _summed(program, meta, program.call(operator.mul, deviation, deviation), axes, keepdim)
    count = np.float32(program.of(x).size / program.of(total).size - correction)
    return program.call(operator.truediv, total, program.constant(count))


def _variance_and_mean(program: NumpyProgram, meta: Any, x: fx.Node, axes: Any = (), **keys: Any) -> list[fx.Node]:
    mean = _mean(program, meta, x, axes, keys.get("keepdim", False))
    return [_variance(program, meta, x, axes, **keys), mean]


def _log_softmax(program: NumpyProgram, meta: Tensor, x: fx.Node, axis: int, _half: bool) -> fx.Node:
    shifted = program.call(operator.sub, x, _highest(program, meta, x, axis, True))
    total = _summed(program, meta, program.call(np.exp, shifted), axis, True)
    return program.call(operator.sub, shifted, program.call(np.log, total))


def _softmax(program: NumpyProgram, meta: Tensor, x: fx.Node, axis: int, _half: bool) -> fx.Node:
    shifted = program.call(operator.sub, x, _highest(program, meta, x, axis, True))
    power = program.call(np.exp, shifted)
    return program.call(operator.truediv, power, _summed(program, meta, power, axis, True))


def _log_softmax_gradient(
    program: NumpyProgram, meta: Tensor, above: fx.Node, result: fx.Node, axis: int, _dtype: Any
) -> fx.Node:
    total = _summed(program, meta, above, axis, True)
    return program.call(operator.sub, above, program.call(operator.mul, program.call(np.exp, result), total))


def _softmax_gradient(
    program: NumpyProgram, meta: Tensor, above: fx.Node, result: fx.Node, axis: int, _dtype: Any
) -> fx.Node:
    weighted = program.call(operator.mul, above, result)
    total = _summed(program, meta, weighted, axis, True)
    return program.call(operator.sub, weighted, program.call(operator.mul, result, total))


def _sigmoid_gradient(program: NumpyProgram, _meta: Tensor, above: fx.Node, result: fx.Node) -> fx.Node:
    slope = program.call(operator.mul, result, program.call(operator.sub, program.constant(np.float32(1)), result))
    return program.call(operator.mul, above, slope)


def _softplus(program: NumpyProgram, _meta: Tensor, x: fx.Node, beta: float = 1, threshold: float = 20) -> fx.Node:
    _only_standard(program, beta, threshold)
    return program.call(softplus, x)


def _softplus_gradient(
    program: NumpyProgram, _meta: Tensor, above: fx.Node, x: fx.Node, beta: float, threshold: float
) -> fx.Node:
    _only_standard(program, beta, threshold)
    return program.call(operator.mul, above, program.call(logistic, x))


def _only_standard(program: NumpyProgram, beta: Any, threshold: Any) -> None:
    if program.number(beta) != 1 or program.number(threshold) != 20:
        raise NotInNumpy("softplus with another beta or threshold")


def _tanh_gradient(program: NumpyProgram, _meta: Tensor, above: fx.Node, result: fx.Node) -> fx.Node:
    square = program.call(operator.mul, result, result)
    return program.call(operator.mul, above, program.call(operator.sub, program.constant(np.float32(1)), square))


def _power(program: NumpyProgram, _meta: Tensor, x: fx.Node, exponent: Any) -> fx.Node:
    number = program.number(exponent)
    if number in (1, 2):
        return x if number == 1 else program.call(operator.mul, x, x)
    return program.call(operator.pow, x, exponent)


def _huber(program: NumpyProgram, meta: Tensor, x: fx.Node, y: fx.Node, reduction: int = 1, delta: Any = 1.0) -> Any:
    _no_reduction(reduction)
    distance = program.call(np.absolute, program.call(operator.sub, x, y))
    near = _clamped(program, meta, distance, high=delta)
    half = program.call(operator.mul, near, program.constant(np.float32(0.5)))
    return program.call(operator.mul, near, program.call(operator.sub, distance, half))


def _huber_gradient(
    program: NumpyProgram, meta: Tensor, above: fx.Node, x: fx.Node, y: fx.Node, reduction: int, delta: Any
) -> fx.Node:
    _no_reduction(reduction)
    slope = _clamped(program, meta, program.call(operator.sub, x, y), program.call(operator.neg, delta), delta)
    return program.call(operator.mul, above, slope)


def _smooth_l1(program: NumpyProgram, meta: Tensor, x: fx.Node, y: fx.Node, reduction: int = 1, beta: Any = 1.0) -> Any:
    return _scaled(operator.truediv)(program, meta, _huber(program, meta, x, y, reduction, beta), beta)


def _smooth_l1_gradient(
    program: NumpyProgram, meta: Tensor, above: fx.Node, x: fx.Node, y: fx.Node, reduction: int, beta: Any
) -> fx.Node:
    gradient = _huber_gradient(program, meta, above, x, y, reduction, beta)
    return _scaled(operator.truediv)(program, meta, gradient, beta)


def _square_error(program: NumpyProgram, _meta: Tensor, x: fx.Node, y: fx.Node, reduction: int = 1) -> fx.Node:
    _no_reduction(reduction)
    error = program.call(operator.sub, x, y)
    return program.call(operator.mul, error, error)


def _square_error_gradient(
    program: NumpyProgram, _meta: Tensor, above: fx.Node, x: fx.Node, y: fx.Node, reduction: int
) -> fx.Node:
    _no_reduction(reduction)
    twice = program.call(operator.mul, program.constant(np.float32(2)), above)
    return program.call(operator.mul, program.call(operator.sub, x, y), twice)


def _no_reduction(reduction: int) -> None:
    if reduction:
        raise NotInNumpy("a loss that is reduced at once")


def _selected(program: NumpyProgram, _meta: Tensor, x: fx.Node, axis: int, index: int) -> fx.Node:
    return program.call(operator.getitem, x, _along(program, x, axis, index))


def _sliced(
    program: NumpyProgram, _meta: Tensor, x: fx.Node, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> fx.Node:
    return program.call(operator.getitem, x, _along(program, x, axis, slice(start, end, step)))


def _put(
    program: NumpyProgram,
    _meta: Tensor,
    x: fx.Node,
    part: fx.Node,
    axis: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> fx.Node:
    return program.call(put, x, _along(program, x, axis, slice(start, end, step)), part)


def _stacked(program: NumpyProgram, meta: Tensor, parts: Sequence[fx.Node], axis: int = 0) -> fx.Node:
    shape = list(meta.shape)
    shape[axis] = 1
    return program.call(np.concatenate, tuple(_in_shape(program, part, tuple(shape)) for part in parts), axis)


def _split(program: NumpyProgram, _meta: Any, x: fx.Node, sizes: Sequence[int], axis: int = 0) -> list[fx.Node]:
    places = [slice(int(end) - size, int(end)) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    return [program.call(operator.getitem, x, _along(program, x, axis, place)) for place in places]


def _along(program: NumpyProgram, x: fx.Node, axis: int, index: Any) -> tuple[Any, ...]:
    return (*[slice(None)] * (axis % program.of(x).ndim), index)


def _gathered(program: NumpyProgram, _meta: Tensor, x: fx.Node, axis: int, index: fx.Node) -> fx.Node:
    found = program.call("take", x, _places(program, x, axis, index))
    return _in_shape(program, found, program.of(index).shape)


def _scattered(program: NumpyProgram, _meta: Tensor, x: fx.Node, axis: int, index: fx.Node, source: fx.Node) -> fx.Node:
    if program.of(index).shape[axis] != 1:
        raise NotInNumpy("scatter_add of several numbers at once")
    source = _in_shape(program, source, (program.of(source).size,))
    number = program.number(x)
    zeros = number is not None and not np.any(number)
    return program.call(put_flat if zeros else add_flat, x, _places(program, x, axis, index), source)


def _places(program: NumpyProgram, x: fx.Node, axis: int, index: fx.Node) -> fx.Node:
    """Return where `index` along an axis, and every entry along the others, lie in `x` flattened; flat itself."""
    shape, strides = program.of(index).shape, np.cumprod([1, *program.of(x).shape[:0:-1]])[::-1]
    every = np.ogrid[tuple(slice(0, size * step, step) for size, step in zip(shape, strides, strict=True))]
    others = sum((steps for other, steps in enumerate(every) if other != axis % len(shape)), np.zeros((), np.int64))
    flat = _in_shape(program, index, (program.of(index).size,))
    flat = _scaled(operator.mul)(program, None, flat, program.constant(strides[axis]))
    return program.call(operator.add, flat, program.constant(np.broadcast_to(others, shape).ravel()))


_TWO = {
    "add": _by(operator.add),
    "sub": _by(operator.sub),
    "mul": _scaled(operator.mul),
    "div": _scaled(operator.truediv),
    "remainder": _by(operator.mod),
    "eq": _by(operator.eq),
    "ne": _by(operator.ne),
    "lt": _by(operator.lt),
    "le": _by(operator.le),
    "gt": _by(operator.gt),
    "ge": _by(operator.ge),
}
"""Of two tensors, or of a tensor and a number."""
_ELEMENTWISE: dict[Any, Translation] = {
    **{getattr(getattr(_aten, name), of): do for name, do in _TWO.items() for of in ("Tensor", "Scalar")},
    _aten.abs.default: _by(np.absolute),
    _aten.alias.default: _same,
    _aten.bitwise_and.Tensor: _by(operator.and_),
    _aten.bitwise_not.default: _by(operator.invert),
    _aten.bitwise_or.Tensor: _by(operator.or_),
    _aten.clamp.default: _clamped,
    _aten.clamp.Tensor: _clamped,
    _aten.clone.default: _same,
    _aten.exp.default: _by(np.exp),
    _aten.expand.default: _same,
    _aten.expm1.default: _by(np.expm1),
    _aten.full_like.default: _filled,
    _aten.huber_loss.default: _huber,
    _aten.huber_loss_backward.default: _huber_gradient,
    _aten.isnan.default: _by(np.isnan),
    _aten.log.default: _by(np.log),
    _aten.log1p.default: _by(np.log1p),
    _aten.logical_and.default: _by(np.logical_and),
    _aten.logical_not.default: _by(np.logical_not),
    _aten.logical_or.default: _by(np.logical_or),
    _aten.masked_fill.Scalar: lambda program, _meta, x, mask, filler: program.call(np.where, mask, filler, x),
    _aten.maximum.default: _by(np.maximum),
    _aten.minimum.default: _by(np.minimum),
    _aten.mse_loss.default: _square_error,
    _aten.mse_loss_backward.default: _square_error_gradient,
    _aten.neg.default: _by(operator.neg),
    _aten.pow.Tensor_Scalar: _power,
    _aten.relu.default: lambda program, meta, x: _clamped(program, meta, x, program.constant(np.float32(0))),
    _aten.rsqrt.default: lambda program, _meta, x: program.call(operator.truediv, 1, program.call(np.sqrt, x)),
    _aten.sigmoid.default: _by(logistic),
    _aten.sigmoid_backward.default: _sigmoid_gradient,
    _aten.sign.default: _by(np.sign),
    _aten.smooth_l1_loss.default: _smooth_l1,
    _aten.smooth_l1_loss_backward.default: _smooth_l1_gradient,
    _aten.softplus.default: _softplus,
    _aten.softplus_backward.default: _softplus_gradient,
    _aten.sqrt.default: _by(np.sqrt),
    _aten.tanh.default: _by(np.tanh),
    _aten.tanh_backward.default: _tanh_gradient,
    _aten.threshold_backward.default: _by(where_above),
    _aten.where.self: _by(np.where),
    operator.getitem: lambda _program, _meta, parts, index: parts[index],
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
    _aten._log_softmax_backward_data.default: _log_softmax_gradient,
    _aten._softmax.default: _softmax,
    _aten._softmax_backward_data.default: _softmax_gradient,
    _aten.addmm.default: _layer,
    _aten.amax.default: _highest,
    _aten.amin.default: _lowest,
    _aten.argmax.default: lambda program, _meta, x, axis=None, keep=False: program.call(
        "argmax", x, axis, keepdims=keep
    ),
    _aten.bmm.default: _product,
    _aten.cat.default: lambda program, _meta, parts, axis=0: program.call(np.concatenate, parts, axis),
    _aten.gather.default: _gathered,
    _aten.mean.default: _mean,
    _aten.mean.dim: _mean,
    _aten.mm.default: _product,
    _aten.scatter_add.default: _scattered,
    _aten.select.int: _selected,
    _aten.slice.Tensor: _sliced,
    _aten.slice_scatter.default: _put,
    _aten.split_with_sizes.default: _split,
    _aten.stack.default: _stacked,
    _aten.sum.default: _summed,
    _aten.sum.dim_IntList: _summed,
    _aten.var.correction: _variance,
    _aten.var_mean.correction: _variance_and_mean,
}
