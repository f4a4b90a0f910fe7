"""A gradient step of small nets by numpy."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.net.adam import AdamOf, AdamState, adam_keys
from slm_lab.agent.net.fallback import NotInNumpy
from slm_lab.agent.net.learner import Loss, ParameterGroup, as_tensors, by_group, differentiate
from slm_lab.agent.net.numpy_graph import NumpyProgram, trace
from slm_lab.agent.net.recorder import NetTensors

TOLERANCE = 1e-3
"""What the first gradients may differ from torch's by, relative to the largest number in any: rounding is 1e-6."""


class NumpyStep:
    """Loss and gradient as one program of numpy for every shape of a batch; clipping and Adam with the least around it.

    Other optimisers step as ever. The first step of all must be a plain one: in it, optimisers make their state.

    Plain numbers that the loss reads besides the batch are taken as they are at the first step of a shape; tensors that
    are neither in the nets nor in the batch are refused.

    Args:
        loss: the loss function.
        nets: what it is a function of, besides the batch; in the memory of the CPU.
        groups: the parameters to train.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup]) -> None:
        self.loss, self.nets, self.groups = loss, nets, groups
        self._tensors = NetTensors(nets, groups)
        self._arrays: list[np.ndarray] = []
        self._places: list[int] = []
        self._programs: dict[Any, tuple[NumpyProgram, list[str]]] = {}
        self._steps: list[_StepOf] = []

    def __call__(self, *batch: Any) -> dict[str, Any]:
        """Take one step on `batch`, arrays or tensors on the CPU; return loss, metrics, and the largest clipped norm.

        Raises:
            NotInNumpy: it cannot be done, and nothing has been changed.
        """
        arrays = _arrays(batch)
        shapes = tuple([(x.shape, x.dtype) for x in arrays])
        with np.errstate(all="ignore"):  # training that diverges is told of elsewhere
            if shapes not in self._programs:
                self._programs[shapes] = self._write(as_tensors(batch))
            program, names = self._programs[shapes]
            results = program.run(*self._values(), *arrays)
        count = len(self._tensors.trained)
        metrics = {
            name: torch.from_numpy(x) if x.shape else x.item() for name, x in zip(names, results[count:], strict=True)
        }
        parts = by_group(self.groups, results[:count])
        norms = [step(own) for step, (_, own) in zip(self._steps, parts, strict=True)]
        known = [norm for norm in norms if norm is not None]
        if known:  # Python's max would lose what is no number
            metrics["grad_norm"] = known[0] if len(known) == 1 else float(np.max(known))
        return metrics

    def _values(self) -> list[np.ndarray]:
        """Return the nets' numbers, in place; workers that share a net move it."""
        places = [tensor.data_ptr() for tensor in self._tensors.all]
        if places != self._places:
            self._places, self._arrays = places, [tensor.detach().numpy() for tensor in self._tensors.all]
            self._steps = [_StepOf(group) for group in self.groups]
        return self._arrays

    def _write(self, batch: Sequence[Any]) -> tuple[NumpyProgram, list[str]]:
        trained, count, names = len(self._tensors.trained), len(self._tensors.all), list[str]()

        def gradient(*inputs: Tensor) -> list[Tensor | None]:
            with self._tensors.replaced_by(inputs):
                found, metrics = differentiate(self.loss, self.nets, inputs[:trained], *inputs[count:])
            names[:] = metrics
            return [*found, *metrics.values()]

        try:
            graph = trace(gradient, [*self._tensors.all, *batch], trained)
            program = NumpyProgram(graph, [*self._values(), *_arrays(batch)])
        except NotInNumpy:
            raise
        except Exception as error:  # torch's tracer and numpy raise anything
            raise NotInNumpy(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        self._compare(program, batch)
        return program, names

    def _compare(self, program: NumpyProgram, batch: Sequence[Tensor]) -> None:
        """Raise where the gradients are not torch's: a large mistake in the translation, which no test has seen.

        What is decided here must not hang on the batch, or a resumed run would go on with other bits: so rounding
        errors of a gradient that would be 0, or of a metric, must not matter.
        """
        expected, _ = differentiate(self.loss, self.nets, self._tensors.trained, *batch)
        pairs = list(zip(program.run(*self._values(), *_arrays(batch)), expected, strict=False))
        if any((mine is None) != (gradient is None) for mine, gradient in pairs):
            raise NotInNumpy("it comes to another set of gradients")
        known = [(mine, gradient.numpy()) for mine, gradient in pairs if gradient is not None]
        limit = TOLERANCE * max((np.abs(gradient).max() for _, gradient in known), default=0.0)
        if not all(np.allclose(mine, gradient, rtol=0, atol=limit, equal_nan=True) for mine, gradient in known):
            raise NotInNumpy("it comes to other gradients than torch")


def _arrays(batch: Sequence[Any]) -> list[np.ndarray]:
    try:
        # single numbers are faster than arrays of no dimension
        return [x if type(x) is np.ndarray else x.numpy() if x.shape else x.numpy()[()] for x in batch]
    except AttributeError:  # it is no tensor
        raise NotInNumpy("sequences") from None


class _StepOf:
    """Clips and steps a group; Adam by its kernel alone, as what torch does around it takes five times as long.

    For that, the numbers of all parameters lie side by side, and so do their gradients, and what Adam keeps of them.
    The steps of the first parameter count for all.
    """

    def __init__(self, group: ParameterGroup) -> None:
        self.group, self._of = group, AdamOf(group)
        self._seen: AdamState | None = None
        self._counts = self._gradient = np.zeros(0, np.float32)
        self._tensors: list[list[Tensor]] = []

    def __call__(self, gradients: Sequence[np.ndarray | None]) -> float | None:
        """Return the norm before clipping, None without clipping."""
        state = self._of.state()
        if state is None:
            return self._by_torch(gradients)
        if state is not self._seen:
            self._lay_out(state)
        np.concatenate([x.reshape(-1) for x in gradients if x is not None], out=self._gradient)
        norm = self._clip()
        self._counts += 1
        decoupled = self.group.optimizer.param_groups[0]["decoupled_weight_decay"]
        step = torch._fused_adamw_ if decoupled else torch._fused_adam_
        step(*self._tensors, lr=self.group.lr, **adam_keys(self.group))
        return norm

    def _by_torch(self, gradients: Sequence[np.ndarray | None]) -> float | None:
        # copies: they are clipped in place, and some may be constants of the program
        norm = self.group.step([None if x is None else torch.from_numpy(np.array(x, order="C")) for x in gradients])
        return None if norm is None else norm.item()

    def _clip(self) -> float | None:
        """Scale the gradient in place."""
        limit = self.group.clip
        if limit is None:
            return None
        norm = math.sqrt(self._gradient.dot(self._gradient))
        if not norm <= limit:
            self._gradient *= np.float32(limit / (norm + 1e-6))
        return norm

    def _lay_out(self, state: AdamState) -> None:
        stepped = [p for p in self.group.parameters if p in self.group.optimizer.state]
        parameters, *moments, steps = [_side_by_side(x) for x in (stepped, *state)]
        self._seen, self._counts = state, steps[0].numpy()
        self._gradient = np.zeros(sum(p.numel() for p in stepped), np.float32)
        self._tensors = [parameters, [torch.from_numpy(self._gradient)], *moments, [steps[0][0]]]


def _side_by_side(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return all numbers of `tensors` as one tensor, to where they are moved if they do not lie so; of none, nothing.

    A second call finds them in place. Who keeps a pointer to one must compare `data_ptr`.
    """
    if not tensors:
        return []
    first, sizes = tensors[0].detach(), [x.numel() for x in tensors]
    places = [first.data_ptr() + first.itemsize * before for before in accumulate(sizes[:-1], initial=0)]
    end = first.itemsize * (first.storage_offset() + sum(sizes))
    apart = [x.data_ptr() for x in tensors] != places or first.untyped_storage().nbytes() < end
    if apart or not all(x.is_contiguous() for x in tensors):
        first = torch.cat([x.detach().reshape(-1) for x in tensors])
        for x, part in zip(tensors, first.split(sizes), strict=True):
            x.data = part.view(x.shape)
    return [first.as_strided((sum(sizes),), (1,))]
