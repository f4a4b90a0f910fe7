"""The optimiser step, for every algorithm: gradient of a loss, clipping, optimiser, learning-rate schedule."""

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim import Optimizer

from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.fallback import NotInNumpy, NotRecorded, OrPlain
from slm_lab.spec import NetSpec, SpecError

if TYPE_CHECKING:
    from slm_lab.agent.net.numpy_step import NumpyStep

T = TypeVar("T")
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""(nets, *batch) -> (scalar to minimise, metrics): pure, so that it can be compiled as a whole."""

Gradients = Sequence[Tensor | None]
"""Of as many parameters; None of those that the loss does not reach."""

TRAINED_IN_TRAINING = (nn.BatchNorm1d, nn.BatchNorm2d, BatchRenorm, nn.RNNBase)
"""Layers that learn in training mode only: there norms take the statistics of the batch, and recurrent cells have a
gradient on a GPU."""
_NOT_HERE = {
    "LBFGS": "it evaluates the loss several times per step",
    "SparseAdam": "it takes sparse gradients only",
    "ReduceLROnPlateau": "it follows a metric, and the rate here is a matter of training events or frames",
    "LambdaLR": "it needs a function, which a spec cannot hold",
    "MultiplicativeLR": "it needs a function, which a spec cannot hold",
    "SequentialLR": "it needs other schedulers, which a spec cannot hold",
    "ChainedScheduler": "it needs other schedulers, which a spec cannot hold",
}
"""What torch has and cannot be used, and why."""


class ParameterGroup:
    """One set of parameters with its own optimiser, gradient clipping and learning-rate schedule, as a net spec says.

    Args:
        parameters: what is trained.
        spec: the net spec; reads `optim_spec`, `clip_grad_val` and `lr_scheduler_spec`.

    Attributes:
        take_step: the optimiser's step; workers that train the same parameters put theirs in its place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], spec: NetSpec) -> None:
        self.parameters = list(parameters)
        self.clip, self.optim_spec = spec.clip_grad_val, spec.optim_spec
        self.optimizer = make_optimizer(self.parameters, spec.optim_spec)
        self.scheduler = make_lr_scheduler(self.optimizer, spec.lr_scheduler_spec)
        self._own_step = partial(take_step, self.optimizer)
        self.take_step: Callable[[], object] = self._own_step

    @property
    def steps_alone(self) -> bool:
        """Whether no other worker has a part in its steps."""
        return self.take_step is self._own_step

    @property
    def lr(self) -> float:
        """The learning rate at this time."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, gradients: Gradients) -> Tensor | None:
        """Clip the gradients and take one optimiser step; return the norm before clipping, None without clipping."""
        norm = clip(gradients, self.clip)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient if gradient is None else _laid_out_as(parameter, gradient)
        self.take_step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's and the schedule's state."""
        optimizer = self.optimizer.state_dict()
        # JSON has no integer keys
        optimizer["state"] = {str(index): state for index, state in optimizer["state"].items()}
        return {"optimizer": optimizer, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        optimizer = dict(state["optimizer"])
        # torch would go on in the very tensors of `state`, and so change it
        optimizer["state"] = {int(index): copy.deepcopy(entry) for index, entry in optimizer["state"].items()}
        # what the state leaves out is as in the spec: a member of a population has rates of its own
        own = self.optimizer.state_dict()["param_groups"]
        groups = zip(own, optimizer["param_groups"], strict=True)
        optimizer["param_groups"] = [{**mine, **given} for mine, given in groups]
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **state["scheduler"]})


class Learner:
    """Minimises one loss by gradient descent.

    The nets are in evaluation mode at all times. Only within a gradient step, and only of what is trained here (not of
    targets, or of the critics in a policy's step), are some layers in training mode: there batch norms take the
    statistics of the batch and update the running ones, and spectral norms follow their weights.

    Args:
        loss: the loss function.
        nets: what the loss is a function of, besides the batch.
        groups: the parameters to train; each group is clipped and stepped on its own.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup]) -> None:
        self.loss = loss
        self.nets = nets
        self.groups = groups
        self.opt_steps = 0
        nets.eval()
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        trained = {id(parameter) for parameter in self._parameters}
        self._in_training: list[nn.Module] = [
            module
            for module in nets.modules()
            if isinstance(module, TRAINED_IN_TRAINING)
            and any(id(parameter) in trained for parameter in module.parameters(recurse=False))
        ]
        self._numpy: NumpyStep | None = None
        self._compiled: OrPlain | None = None
        for module in nets.modules():  # spectral norms: how they follow the weight that they are of
            if isinstance(module, ParametrizationList) and id(module.original) in trained:
                self._in_training += list(module)

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return self.groups[0].lr

    def use_numpy(self) -> None:
        """Hand every step but the very first to numpy, where it can do them: of small nets on a CPU."""
        try:
            from slm_lab.agent.net.numpy_step import NumpyStep
        except (ImportError, AttributeError) as missing:  # torch's tracer moves from version to version
            logger.debug("gradient steps are left to torch: {}", missing)
            return
        if not self._in_training:
            self._numpy = NumpyStep(self.loss, self.nets, self.groups)

    @property
    def in_numpy(self) -> bool:
        """Whether numpy does the steps."""
        return self._numpy is not None

    def compile(self, backend: str = "inductor") -> None:
        """Hand every step but the very first, and those by numpy, to this backend of `torch.compile`, as one graph."""
        from slm_lab.agent.net.compiled import CompiledStep

        self._compiled = OrPlain("the step", CompiledStep(self.loss, self.nets, self.groups, backend), self._plain)

    def compile_ahead(self) -> None:
        """Hand every step but the very first, and those by numpy, to a library; for nets on a CPU.

        What cannot be a graph without its Python around it, `torch.compile` gets.
        """
        from slm_lab.agent.net.ahead import AheadStep

        self._compiled = OrPlain("the step", AheadStep(self.loss, self.nets, self.groups), self._plain)

    def step(self, *batch: Any) -> dict[str, Any]:
        """Take one gradient step on `batch`, of tensors and arrays; return the loss and its metrics.

        They are detached, and still on the device; a single number may be a plain one.
        """
        for module in self._in_training:
            module.train()
        metrics = self._take(batch) if self.opt_steps else self._plain(*as_tensors(batch))
        for module in self._in_training:
            module.eval()
        self.opt_steps += len(self.groups)
        return metrics

    def _take(self, batch: Sequence[Any]) -> dict[str, Any]:
        if self._numpy is not None:
            try:
                return self._numpy(*batch)
            except NotInNumpy as reason:
                logger.debug("a gradient step is left to torch: {}", reason)
                self._numpy = None
        batch = as_tensors(batch)
        if self._compiled is None:
            return self._plain(*batch)
        try:
            return self._compiled(*batch)
        except NotRecorded as reason:
            logger.debug("a gradient step is left to torch.compile: {}", reason)
            self.compile()
            return self._compiled(*batch)

    def _plain(self, *batch: Any) -> dict[str, Tensor]:
        gradients, metrics = differentiate(self.loss, self.nets, self._parameters, *batch)
        return metrics | largest([group.step(own) for group, own in by_group(self.groups, gradients)])

    def decay(self, frame: int) -> None:
        """Move the learning rates on: to be called once per training event.

        Args:
            frame: frames so far; LinearToZero and LinearToMin are functions of it, the schedulers of torch count the
                calls.
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


def differentiate(
    loss_fn: Loss, nets: nn.Module, parameters: Sequence[Tensor], *batch: Any
) -> tuple[Gradients, dict[str, Tensor]]:
    """Return the gradients of `loss_fn` with respect to `parameters`, and its metrics with the loss itself, detached.

    Other parameters that the loss reaches get none: it is another learner that trains them.
    """
    loss, metrics = loss_fn(nets, *batch)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return gradients, {name: value.detach() for name, value in metrics.items()} | {"loss": loss.detach()}


def as_tensors(batch: Sequence[Any]) -> list[Any]:
    """Return a batch with tensors in the place of arrays, on the same memory."""
    return [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in batch]


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient in the memory layout of its parameter: fused optimisers go through both number by number."""
    same = gradient.stride() == parameter.stride()
    return gradient if same else torch.empty_like(parameter).copy_(gradient)


def by_group(groups: Sequence[ParameterGroup], gradients: Sequence[T]) -> list[tuple[ParameterGroup, list[T]]]:
    """Give each group the gradients of its parameters."""
    rest = iter(gradients)
    return [(group, [next(rest) for _ in group.parameters]) for group in groups]


def clip(gradients: Gradients, limit: float | None) -> Tensor | None:
    """Scale the gradients, in place, to a common norm of at most `limit`; return the norm before, None if no limit."""
    if limit is None:
        return None
    reached = [gradient for gradient in gradients if gradient is not None]
    # by default one call for all of them, which no compiler looks into
    norm = nn.utils.get_total_norm(reached, foreach=False if torch.compiler.is_compiling() else None)
    torch._foreach_mul_(reached, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def largest(norms: Iterable[Tensor | None]) -> dict[str, Tensor]:
    """Return the largest norm as a metric; nothing where none is known."""
    known = [norm for norm in norms if norm is not None]
    return {"grad_norm": torch.stack(known).max()} if known else {}


class LinearToZero:
    """Falls in a straight line from the optimiser's learning rate to 0 at `frame`."""

    def __init__(self, optimizer: Optimizer, frame: float) -> None:
        self.optimizer, self.end, self.floor = optimizer, frame, 0.0
        self.start = [group["lr"] for group in optimizer.param_groups]

    def advance(self, frame: int) -> None:
        """Set the learning rates for `frame`."""
        for group, start in zip(self.optimizer.param_groups, self.start, strict=True):
            group["lr"] = start * max(self.floor, 1.0 - (1.0 - self.floor) * frame / self.end)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the rate is a function of the frame."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing: the rate is a function of the frame."""


class LinearToMin(LinearToZero):
    """Falls in a straight line from the optimiser's learning rate to `min_factor` times it at `frame`."""

    def __init__(self, optimizer: Optimizer, frame: float, min_factor: float) -> None:
        super().__init__(optimizer, frame)
        self.floor = min_factor


class TorchScheduler:
    """A scheduler of `torch.optim.lr_scheduler`, stepped once per training event. Without one, the rate is constant.

    Attributes:
        events: how many training events there were since the last call; workers that train together count all of them.
    """

    def __init__(self, scheduler: Any = None) -> None:
        self.scheduler = scheduler
        self.events: Callable[[], int] = lambda: 1

    def advance(self, frame: int) -> None:  # noqa: ARG002 - torch's schedulers count their own steps
        """Count one training event."""
        if self.scheduler is not None:
            for _ in range(self.events()):
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


# torch keeps its compiler out of these, and imports it to do so (a second, and 70 MB) where no function is noted here
for _method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict, Optimizer.zero_grad):
    _unwrapped: Any = inspect.unwrap(_method)
    setattr(_unwrapped, "__dynamo_disable", _unwrapped)


@torch.no_grad()
def take_step(optimizer: Optimizer) -> None:
    """Take a step of `optimizer`, without the compiler that torch imports to keep it out."""
    inspect.unwrap(type(optimizer).step)(optimizer)
    vars(optimizer)["_opt_called"] = True  # torch's schedulers look for it


def make_optimizer(parameters: list[nn.Parameter], spec: Mapping[str, Any]) -> Optimizer:
    """Build an optimiser of `torch.optim` by name, e.g. `{"name": "Adam", "lr": 3e-4}`; fused where torch offers it.

    Raises:
        SpecError: there is no such optimiser, it cannot be used here, or it does not take these arguments.
    """
    place = "agent.net.optim_spec"
    cls = _by_name(spec["name"], _classes(torch.optim, Optimizer), place)
    fused = "fused" in inspect.signature(cls).parameters and not {"fused", "foreach", "differentiable"} & spec.keys()
    return _build(cls, parameters, {**spec, "fused": True} if fused else spec, place)


def make_lr_scheduler(optimizer: Optimizer, spec: Mapping[str, Any] | None) -> LinearToZero | TorchScheduler:
    """Build `LinearToZero`, `LinearToMin` or a scheduler of `torch.optim.lr_scheduler` by name.

    Raises:
        SpecError: there is no such scheduler, it cannot be used here, or it does not take these arguments.
    """
    if spec is None:
        return TorchScheduler()
    place = "agent.net.lr_scheduler_spec"
    known = _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    cls = _by_name(spec["name"], known | {"LinearToZero": LinearToZero, "LinearToMin": LinearToMin}, place)
    scheduler = _build(cls, optimizer, spec, place)
    return scheduler if isinstance(scheduler, LinearToZero) else TorchScheduler(scheduler)


def _classes(module: Any, base: type) -> dict[str, type]:
    """Return the public classes of `module` that derive from `base`."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)}
    return {name: value for name, value in found.items() if value is not base and not name.startswith("_")}


def _by_name(name: str, known: Mapping[str, type], place: str) -> Any:
    if name in _NOT_HERE and name in known:
        raise SpecError(f"{place}.name: {name} cannot be used: {_NOT_HERE[name]}")
    if name in known:
        return known[name]
    raise SpecError(f"{place}.name: unknown name {name!r}{_near(name, known.keys() - _NOT_HERE)}")


def _build(cls: Any, subject: Any, spec: Mapping[str, Any], place: str) -> Any:
    """Call `cls` on `subject` (parameters, or an optimiser) with the arguments of `spec`."""
    kwargs = {key: value for key, value in spec.items() if key != "name"}
    _, *accepted = inspect.signature(cls).parameters
    for key in kwargs:
        if key not in accepted:
            raise SpecError(f"{place}.{key}: unknown key{_near(key, accepted)}")
    try:
        return cls(subject, **kwargs)
    except (TypeError, ValueError) as error:  # an argument is missing, or out of its range
        raise SpecError(f"{place}: {spec['name']} cannot be built: {error}") from error


def _near(word: str, known: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else f" (known: {', '.join(by_lower.values())})"
