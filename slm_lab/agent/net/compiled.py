"""A gradient step as one graph of `torch.compile`."""

from collections.abc import Callable, Sequence
from itertools import chain
from types import FunctionType
from typing import Any

import torch
import torch._dynamo  # takes a second: import this module only where something is compiled
from torch import Tensor, nn
from torch.optim.adam import adam

from slm_lab.agent.net.adam import AdamOf, AdamState, adam_keys
from slm_lab.agent.net.learner import Gradients, Loss, ParameterGroup, by_group, clip, differentiate, largest


class CompiledStep:
    """Loss, gradient, clipping and Adam as one graph; another optimiser steps after the graph.

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
        self._states = [_Adam(group) for group in groups]
        config: Any = torch._dynamo.config
        config.trace_autograd_ops = True
        # torch keeps graphs by code object, and as it is not to look at the nets, every learner needs one of its own
        step = FunctionType(_step.__code__.replace(), _step.__globals__)
        options: dict[str, Any] = {"guard_filter_fn": _of_the_batch}
        self._on_cpu = all(parameter.is_cpu for group in groups for parameter in group.parameters)
        if backend == "inductor":
            # between two kernels, Python would take longer than most of them
            from slm_lab.agent.net.simpler_products import SimplerProducts

            cpu = {
                "cpp_wrapper": True,
                "post_grad_custom_post_pass": SimplerProducts(),
                "cpp.use_decompose_tanh": True,  # by exp, to 2e-7, in a fourth of the time
                "unroll_reductions_threshold": 3,  # a sum over more is not vectorised where it is written out
            }
            options |= cpu if self._on_cpu else {"triton.cudagraphs": True}
        self._step: Callable[..., Any] = torch.compile(step, fullgraph=True, backend=backend, options=options)

    def __call__(self, *batch: Any) -> dict[str, Tensor]:
        """Take one step on `batch`; return the loss, its metrics, and the largest norm of the clipped gradients.

        What cannot be compiled raises an error of any kind, before anything is changed.
        """
        states = [state.now() for state in self._states]
        metrics, left = self._step(self.loss, self.nets, self.groups, states, batch)
        if not self._on_cpu:  # a CUDA graph writes them there again
            metrics = {name: value.clone() for name, value in metrics.items()}
        norms = [group.step(gradients) for group, gradients in zip(self.groups, left, strict=True) if gradients]
        return metrics | largest([metrics.get("grad_norm"), *norms]) if norms else metrics


class _Adam:
    """A group's Adam as a graph takes it: a number would be part of the graph, and a schedule changes the rate."""

    def __init__(self, group: ParameterGroup) -> None:
        self.group, self._of = group, AdamOf(group)
        self._seen: AdamState | None = None
        self._lr, self._rate = torch.zeros(()), 0.0

    def now(self) -> tuple[AdamState, Tensor] | None:
        """Return the state and the learning rate; None where the graph leaves the step to others."""
        state = self._of.state()
        if state is None:
            return None
        if state is not self._seen:
            self._seen, self._rate = state, 0.0
            self._lr = torch.zeros((), device=state.exp_avg[0].device)
            for tensor in (*chain(*state), self._lr):
                torch._dynamo.mark_static_address(tensor)  # a CUDA graph need not copy it
        if self.group.lr != self._rate:
            self._rate = self.group.lr
            self._lr.fill_(self._rate)
        return state, self._lr


def _step(
    loss_fn: Loss,
    nets: nn.Module,
    groups: list[ParameterGroup],
    states: list[tuple[AdamState, Tensor] | None],
    batch: Sequence[Any],
) -> tuple[dict[str, Tensor], list[Gradients]]:
    """Step the groups that have a state; return the metrics, and what gradients are left to the others."""
    parameters = [parameter for group in groups for parameter in group.parameters]
    gradients, metrics = differentiate(loss_fn, nets, parameters, *batch)
    norms, left = [], []
    for (group, own), state in zip(by_group(groups, gradients), states, strict=True):
        if state is not None:
            norms.append(clip(own, group.clip))
            _adam(group, own, *state)
        left.append(own if state is None else ())
    return metrics | largest(norms), left


@torch.no_grad()
def _adam(group: ParameterGroup, gradients: Gradients, state: AdamState, lr: Tensor) -> None:
    """Step the parameters that have a gradient, in place."""
    pairs = zip(group.parameters, gradients, strict=True)
    parameters: list[Tensor] = [parameter for parameter, gradient in pairs if gradient is not None]
    adam(
        parameters,
        [gradient for gradient in gradients if gradient is not None],
        state.exp_avg,
        state.exp_avg_sq,
        state.max_exp_avg_sq,
        state.step,
        foreach=False,
        capturable=True,  # the steps are counted by tensors
        decoupled_weight_decay=group.optimizer.param_groups[0]["decoupled_weight_decay"],
        lr=lr,
        **adam_keys(group),
    )


def _of_the_batch(guards: Sequence[Any]) -> list[bool]:
    """Tell which guards to keep: those of the batch's shapes."""
    return [guard.name.startswith("batch") or guard.guard_type == "SHAPE_ENV" for guard in guards]
