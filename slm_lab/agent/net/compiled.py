"""A gradient step as one graph of `torch.compile`."""

from collections.abc import Callable, Sequence
from itertools import chain
from types import FunctionType
from typing import Any

import torch
import torch._dynamo  # takes a second: import this module only where something is compiled
from torch import Tensor, nn

from slm_lab.agent.net.adam import AdamInGraph, AdamState
from slm_lab.agent.net.learner import Gradients, Loss, ParameterGroup
from slm_lab.agent.net.whole_step import step_others, whole_step


class CompiledStep:
    """Loss, gradient, clipping and Adam as one graph; another optimiser steps after the graph.

    On a CPU it is for what `AheadStep` cannot do: sequences, batches of many shapes, nets from outside, noisy ones.

    Whatever a step reads besides the batch is the same at every call, so only the batch is looked at again before the
    graph runs: with small nets, that look takes longer than the step.

    The first step of all must be a plain one: in it, optimisers make their state.

    Args:
        loss: the loss function.
        nets: what it is a function of, besides the batch.
        groups: the parameters to train.
        backend: of `torch.compile`.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup], backend: str = "inductor") -> None:
        self.loss, self.nets, self.groups = loss, nets, groups
        self._adams = [AdamInGraph(group) for group in groups]
        self._seen: list[Any] = [None] * len(groups)
        config: Any = torch._dynamo.config
        config.trace_autograd_ops = True
        # torch keeps graphs by code object, and as it is not to look at the nets, every learner needs one of its own
        step = FunctionType(_step.__code__.replace(), _step.__globals__)
        options: dict[str, Any] = {"guard_filter_fn": _of_the_batch}
        self._on_cpu = all(parameter.is_cpu for group in groups for parameter in group.parameters)
        if backend == "inductor":  # between two kernels, Python would take longer than most of them
            options["cpp_wrapper" if self._on_cpu else "triton.cudagraphs"] = True
        self._step: Callable[..., Any] = torch.compile(step, fullgraph=True, backend=backend, options=options)

    def __call__(self, *batch: Any) -> dict[str, Tensor]:
        """Take one step on `batch`; return the loss, its metrics, and the largest norm of the clipped gradients.

        What cannot be compiled raises an error of any kind, before anything is changed.
        """
        states = [adam.now() for adam in self._adams]
        for state, seen in zip(states, self._seen, strict=True):
            if state is not None and state is not seen:
                for tensor in (*chain(*state[0]), state[1]):
                    torch._dynamo.mark_static_address(tensor)  # a CUDA graph need not copy it
        self._seen = states
        metrics, left = self._step(self.loss, self.nets, self.groups, states, batch)
        if not self._on_cpu:  # a CUDA graph writes them there again
            metrics = {name: value.clone() for name, value in metrics.items()}
        return step_others(self.groups, metrics, left)


def _step(
    loss_fn: Loss,
    nets: nn.Module,
    groups: list[ParameterGroup],
    states: list[tuple[AdamState, Tensor] | None],
    batch: Sequence[Any],
) -> tuple[dict[str, Tensor], list[Gradients]]:
    parameters = [parameter for group in groups for parameter in group.parameters]
    return whole_step(loss_fn, nets, groups, parameters, states, batch)


def _of_the_batch(guards: Sequence[Any]) -> list[bool]:
    """Tell which guards to keep: those of the batch's shapes."""
    return [guard.name.startswith("batch") or guard.guard_type == "SHAPE_ENV" for guard in guards]
