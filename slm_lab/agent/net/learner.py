"""The optimiser step: gradient of a loss, clipping, optimiser, learning-rate schedule. Written once, for every algorithm."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.spec import NetSpec, SpecError

Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""(nets, *batch) -> (scalar to minimise, metrics): pure, so that it can be compiled as a whole."""


class ParameterGroup:
    """One set of parameters with its own optimiser, gradient clipping and learning-rate schedule, as a net spec says.

    Args:
        parameters: what is trained.
        spec: the net spec; reads `optim_spec`, `clip_grad_val` and `lr_scheduler_spec`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], spec: NetSpec) -> None:
        self.parameters = list(parameters)
        self.clip = spec.clip_grad_val
        self.optimizer = make_optimizer(self.parameters, spec.optim_spec)
        self.scheduler = make_lr_scheduler(self.optimizer, spec.lr_scheduler_spec)

    def step(self) -> Tensor | None:
        """Clip the gradients, take one optimiser step and return the norm before clipping (None if none is computed)."""
        norm = None if self.clip is None else nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's and the schedule's state."""
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            str(index): state for index, state in optimizer["state"].items()
        }  # JSON has no integer keys
        return {"optimizer": optimizer, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        optimizer = dict(state["optimizer"])
        optimizer["state"] = {int(index): entry for index, entry in optimizer["state"].items()}
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(state["scheduler"])


class Learner:
    """Minimises one loss by gradient descent.

    Args:
        loss: the loss function.
        nets: what the loss is a function of, besides the batch.
        groups: the parameters to train; each group is clipped and stepped on its own.
        compile_loss: hand the loss to `torch.compile`.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup], compile_loss: bool = False) -> None:
        self.loss: Loss = torch.compile(loss) if compile_loss else loss
        self.nets = nets
        self.groups = groups
        self.opt_steps = 0

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return float(self.groups[0].optimizer.param_groups[0]["lr"])

    def step(self, *batch: Any) -> dict[str, Tensor]:
        """Take one gradient step on `batch`; return the loss and its metrics, detached and still on the device."""
        loss, metrics = self.loss(self.nets, *batch)
        for group in self.groups:
            group.optimizer.zero_grad()
        loss.backward()
        norms = [norm for group in self.groups if (norm := group.step()) is not None]
        self.opt_steps += len(self.groups)
        metrics = {name: value.detach() for name, value in metrics.items()} | {"loss": loss.detach()}
        return metrics | ({"grad_norm": torch.stack(norms).max()} if norms else {})

    def decay(self, frame: int) -> None:
        """Move the learning rates on: to be called once per training event.

        Args:
            frame: frames so far; LinearToZero is a function of it, the schedulers of torch count the calls.
        """
        for group in self.groups:
            group.scheduler.advance(frame)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every group."""
        return {"groups": [group.state_dict() for group in self.groups], "opt_steps": self.opt_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for group, entry in zip(self.groups, state["groups"], strict=True):
            group.load_state_dict(entry)
        self.opt_steps = int(state["opt_steps"])


class LinearToZero:
    """Falls in a straight line from the optimiser's learning rate to 0 at `frame`."""

    def __init__(self, optimizer: torch.optim.Optimizer, frame: float) -> None:
        self.optimizer, self.end = optimizer, frame
        self.start = [group["lr"] for group in optimizer.param_groups]

    def advance(self, frame: int) -> None:
        """Set the learning rates for `frame`."""
        for group, start in zip(self.optimizer.param_groups, self.start, strict=True):
            group["lr"] = start * max(0.0, 1.0 - frame / self.end)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the rate is a function of the frame."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing: the rate is a function of the frame."""


class TorchScheduler:
    """Any scheduler of `torch.optim.lr_scheduler`, stepped once per training event. Without one, the rate is constant."""

    def __init__(self, scheduler: Any = None) -> None:
        self.scheduler = scheduler

    def advance(self, frame: int) -> None:  # noqa: ARG002 - torch's schedulers count their own steps
        """Count one training event."""
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the plain values of the scheduler's own state."""
        state = self.scheduler.state_dict() if self.scheduler is not None else {}
        return {key: dict(value) if isinstance(value, dict) else value for key, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        if self.scheduler is not None:
            restored = dict(state)
            if "milestones" in restored:  # a Counter with integer keys, which JSON turned into text
                counter = type(self.scheduler.milestones)
                restored["milestones"] = counter({int(step): n for step, n in restored["milestones"].items()})
            self.scheduler.load_state_dict(restored)


def make_optimizer(parameters: list[nn.Parameter], spec: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Build any optimiser of `torch.optim` by name, e.g. `{"name": "Adam", "lr": 3e-4}`; fused where torch offers it."""
    cls = _by_name(torch.optim, spec["name"], torch.optim.Optimizer, "agent.net.optim_spec.name")
    kwargs = {key: value for key, value in spec.items() if key != "name"}
    accepted = inspect.signature(cls).parameters
    _check_kwargs(kwargs, accepted, "agent.net.optim_spec")
    if "fused" in accepted and not {"fused", "foreach", "differentiable"} & kwargs.keys():
        kwargs["fused"] = True
    return cls(parameters, **kwargs)


def make_lr_scheduler(
    optimizer: torch.optim.Optimizer, spec: Mapping[str, Any] | None
) -> LinearToZero | TorchScheduler:
    """Build `LinearToZero` or any scheduler of `torch.optim.lr_scheduler` by name."""
    if spec is None:
        return TorchScheduler()
    kwargs = {key: value for key, value in spec.items() if key != "name"}
    if spec["name"] == "LinearToZero":
        return LinearToZero(optimizer, kwargs["frame"])
    place = "agent.net.lr_scheduler_spec"
    cls = _by_name(torch.optim.lr_scheduler, spec["name"], torch.optim.lr_scheduler.LRScheduler, f"{place}.name")
    _check_kwargs(kwargs, inspect.signature(cls).parameters, place)
    return TorchScheduler(cls(optimizer, **kwargs))


def _by_name(module: Any, name: str, base: type, place: str) -> Any:
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, base) and found is not base:
        return found
    names = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
    near = difflib.get_close_matches(name, [*names, "LinearToZero"], n=1)
    raise SpecError(f"{place}: {module.__name__} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _check_kwargs(kwargs: Mapping[str, Any], accepted: Mapping[str, Any], place: str) -> None:
    for key in kwargs:
        if key not in accepted:
            near = difflib.get_close_matches(key, accepted, n=1)
            raise SpecError(f"{place}.{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
