"""Adam's state, for steps that do without torch's way around it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import Adam

from slm_lab.agent.net.learner import ParameterGroup

_AS_THEY_ARE = ("amsgrad", "weight_decay", "eps", "maximize")


class AdamState(NamedTuple):
    """What Adam keeps of the parameters that have a gradient, each a list of as many tensors."""

    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    max_exp_avg_sq: list[Tensor]
    step: list[Tensor]


def adam_keys(group: ParameterGroup) -> dict[str, Any]:
    """Return what the functions behind a group's Adam are called with besides tensors and the learning rate."""
    (options,) = group.optimizer.param_groups
    beta1, beta2 = options["betas"]
    return {"beta1": beta1, "beta2": beta2} | {name: options[name] for name in _AS_THEY_ARE}


class AdamOf:
    """The state of a group's optimiser, looked up again only where another has been loaded.

    Args:
        group: the group; in a first step, its optimiser has made the state.
    """

    def __init__(self, group: ParameterGroup) -> None:
        self.group = group
        self._source: object = None
        self._state: AdamState | None = None

    def state(self) -> AdamState | None:
        """Return the state; None where it is no Adam, or workers share the step."""
        group, optimizer = self.group, self.group.optimizer
        if not isinstance(optimizer, Adam) or not group.steps_alone:
            return None
        if self._source is not optimizer.state:
            states = [optimizer.state[parameter] for parameter in group.parameters if parameter in optimizer.state]
            columns = [[state[name] for state in states if name in state] for name in AdamState._fields]
            self._source, self._state = optimizer.state, AdamState(*columns)
        return self._state


class AdamInGraph:
    """A group's Adam as a graph takes it: a number would be part of the graph, and a schedule changes the rate."""

    def __init__(self, group: ParameterGroup) -> None:
        self.group, self._of = group, AdamOf(group)
        self._now: tuple[AdamState, Tensor] | None = None
        self._rate = 0.0

    def now(self) -> tuple[AdamState, Tensor] | None:
        """Return the state and the learning rate, the same tensors while no other state is loaded; None as `AdamOf`."""
        state = self._of.state()
        if state is None:
            return None
        if self._now is None or self._now[0] is not state:
            self._now, self._rate = (state, torch.zeros((), device=state.exp_avg[0].device)), 0.0
        if self.group.lr != self._rate:
            self._rate = self.group.lr
            self._now[1].fill_(self._rate)
        return self._now
