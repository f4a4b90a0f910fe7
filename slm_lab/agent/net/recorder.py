"""What a function of tensors does, written down as a graph without any of torch's autograd."""

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import stateless
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from slm_lab.agent.net.fallback import NotRecorded
from slm_lab.agent.net.learner import ParameterGroup
from slm_lab.agent.net.numpy_net import hidden_from_numpy


class Recorder(TorchDispatchMode):
    """Writes down every operation below torch's autograd as a node of a graph.

    torch's own tracer does so too, but imports the compiler: a second, and 70 MB. Here operations are carried out as
    well, and a tensor is known by its place in memory, as autograd makes new ones of those that it keeps. No results
    are held here, so that recording takes no more memory than a step: a place is forgotten when it is freed.

    Args:
        inputs: the tensors that operations may begin with, besides constants.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.constants = fx.Graph(), dict[str, Tensor]()
        self._nodes: dict[Any, tuple[fx.Node, StorageWeakRef]] = {}
        self._empty: list[Tensor] = []
        for index, x in enumerate(inputs):
            self.note(x, self.graph.placeholder(f"x{index}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, to keep it out of __torch_dispatch__

    def simpler(self, func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG002 - for those who know some
        """Return the result of `func` by operations to be written down in its place; NotImplemented without any."""
        return NotImplemented

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out and write down `func`, or what it comes to in simpler operations."""
        kwargs = kwargs or {}
        found = self.simpler(func, args, kwargs)
        if found is not NotImplemented:
            return found
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecorded(f"{func}, which draws numbers")
        if torch.Tag.data_dependent_output in func.tags:
            raise NotRecorded(f"{func}, as what follows hangs on a number")
        if func is torch.ops.aten.lift_fresh.default:  # a number that is written in the function
            name = f"written{len(self.constants)}"
            self.constants[name] = args[0].clone()
            # a copy, as the function may change its own in place
            node = self.graph.call_function(torch.ops.aten.clone.default, (self.graph.get_attr(name),))
        else:
            node = self.graph.call_function(func, *tree_map(self._node_or_number, (args, kwargs)))
        found = func(*args, **kwargs)
        self.note(found, node)
        return found

    def note(self, found: Any, node: fx.Node) -> None:
        """Know what `node` comes to: a tensor, several, or none where others are changed in place."""
        if isinstance(found, Tensor):
            self._nodes[_place(found)] = node, StorageWeakRef(found.untyped_storage())
            if not found.numel():
                self._empty.append(found)  # all of them have one place
        elif isinstance(found, list | tuple):
            for index, part in enumerate(found):
                if isinstance(part, Tensor):
                    self.note(part, self.graph.call_function(operator.getitem, (node, index)))
        elif found is not None:
            raise NotRecorded(f"{node.target}, as what follows hangs on what it says")

    def node_of(self, x: Tensor) -> fx.Node:
        """Return the node whose result is `x`.

        Raises:
            NotRecorded: there is none.
        """
        node, place = self._nodes.get(_place(x), (None, None))
        if node is None or place is None or place.expired():
            raise NotRecorded("a tensor that is neither in the nets nor in the batch")
        return node

    def _node_or_number(self, x: Any) -> Any:
        return self.node_of(x) if isinstance(x, Tensor) else x


def record(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    differentiable: int,
    recorder: Callable[[Sequence[Tensor]], Recorder] = Recorder,
) -> fx.GraphModule:
    """Return what `function`, which may take gradients, does with copies of `inputs`.

    Args:
        function: of as many tensors, to a sequence of tensors, some of them None.
        inputs: examples.
        differentiable: how many of them, from the first on, it takes gradients with respect to.
        recorder: makes what writes the graph down.

    Raises:
        NotRecorded: numbers are drawn or looked at, or a tensor is neither among the inputs nor made of them.
        Exception: of any kind, where an operation is not one of torch's own.
    """
    copies = [x.detach().clone() for x in inputs]  # the same memory would be the same tensor
    for leaf in copies[:differentiable]:
        leaf.requires_grad_()
    writes = recorder(copies)
    with hidden_from_numpy(), _NoLooks(), writes:
        outputs = function(*copies)
    writes.graph.output([None if out is None else writes.node_of(out) for out in outputs])
    return fx.GraphModule(writes.constants, writes.graph)


class NetTensors:
    """The tensors of nets, those that are trained first, as the inputs of a function that is recorded.

    Args:
        nets: the nets.
        groups: what is trained; some of it may be outside of them.

    Attributes:
        trained: the parameters of all groups.
        all: these, and the other parameters and the buffers of the nets, each once.
    """

    def __init__(self, nets: nn.Module, groups: Sequence[ParameterGroup]) -> None:
        self._nets = nets
        self.trained: list[Tensor] = [parameter for group in groups for parameter in group.parameters]
        self.all = list(dict.fromkeys([*self.trained, *nets.parameters(), *nets.buffers()]))

    def replaced_by(self, tensors: Sequence[Tensor]) -> AbstractContextManager[Any]:
        """Return the context in which others are in the nets, in the order of `all`."""
        place = {id(tensor): position for position, tensor in enumerate(self.all)}
        named = [*self._nets.named_parameters(), *self._nets.named_buffers()]
        return stateless._reparametrize_module(self._nets, {name: tensors[place[id(x)]] for name, x in named})


class _NoLooks(TorchFunctionMode):
    """Refuses what looks at numbers on a way that a dispatch mode does not see: they would become constants."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`."""
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__):
            raise NotRecorded(f"{func.__name__}, as what follows hangs on a number")
        return func(*args, **(kwargs or {}))


def _place(x: Tensor) -> Any:
    return x.data_ptr(), x.shape, x.stride(), x.dtype
