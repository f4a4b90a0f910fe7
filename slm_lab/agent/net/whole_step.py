"""A gradient step as one function, for who makes a graph of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from slm_lab.agent.net.adam import AdamState, adam_keys
from slm_lab.agent.net.learner import Gradients, Loss, ParameterGroup, by_group, clip, differentiate, largest


def whole_step(
    loss_fn: Loss,
    nets: nn.Module,
    groups: Sequence[ParameterGroup],
    parameters: Sequence[Tensor],
    states: Sequence[tuple[AdamState, Tensor] | None],
    batch: Sequence[Any],
) -> tuple[dict[str, Tensor], list[Gradients]]:
    """Step the groups that have a state of Adam, and a rate.

    Args:
        loss_fn: the loss function.
        nets: what it is a function of, besides the batch.
        groups: what is trained, and how.
        parameters: of all groups.
        states: of each group; None where others take the step.
        batch: the batch.

    Returns:
        the loss, its metrics, and the largest norm of the clipped gradients; and what gradients are left to others.
    """
    gradients, metrics = differentiate(loss_fn, nets, parameters, *batch)
    norms, left = [], []
    columns = by_group(groups, gradients), by_group(groups, parameters), states
    for (group, own), (_, trained), state in zip(*columns, strict=True):
        if state is not None:
            norms.append(clip(own, group.clip))
            _adam(group, trained, own, *state)
        left.append(own if state is None else ())
    return metrics | largest(norms), left


def step_others(
    groups: Sequence[ParameterGroup], metrics: dict[str, Tensor], left: Sequence[Gradients]
) -> dict[str, Tensor]:
    """Take the steps that `whole_step` has left; return the metrics of all."""
    norms = [group.step(gradients) for group, gradients in zip(groups, left, strict=True) if gradients]
    return metrics | largest([metrics.get("grad_norm"), *norms]) if norms else metrics


@torch.no_grad()
def _adam(
    group: ParameterGroup, parameters: Sequence[Tensor], gradients: Gradients, state: AdamState, lr: Tensor
) -> None:
    """Step the parameters that have a gradient, in place."""
    pairs = [(p, gradient) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    adam(
        [parameter for parameter, _ in pairs],
        [gradient for _, gradient in pairs],
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
