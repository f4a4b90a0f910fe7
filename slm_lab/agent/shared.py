"""One set of parameters for several workers: nets and optimiser state in a file that their processes map into memory.

The workers build the same agent from the same spec, so they agree on what lies where in the file without a word: the
counters first, then the parameters, then what is not trained, then the state of the optimisers.
"""

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent import Agent
from slm_lab.agent.net.learner import ParameterGroup, TorchScheduler, make_optimizer, take_step

ALIGNMENT = 64
"""Bytes of a cache line: no two tensors share one."""


class Shared:
    """What the workers of a trial have in common: parameters, optimiser state, counts.

    `shared` (Hogwild: Niu et al. 2011, arXiv:1106.5730): the nets of every worker lie in the common memory. Gradients
    are each worker's own; optimiser steps are taken in place, and nobody waits for anybody.

    `synced` (A3C: Mnih et al. 2016, arXiv:1602.01783, Algorithm S3): every worker has nets of its own. Under a lock it
    hands its gradient to the common parameters, steps the common optimiser, and takes the new weights home. The paper
    takes them home before the next rollout, which with one gradient step per rollout is the same, and locks nothing.

    In both, what is not trained by gradient (target nets, running statistics of batch norms) lies in the common memory,
    as the target net of the paper's asynchronous Q-learning does: it follows once for all. Memories, random streams,
    environments and their normalisers are each worker's own.

    The workers race, so the same seed does not give the same bits, and a run that is resumed is not what it would have
    been; it goes on from the weights, optimiser state and counts in the checkpoint of worker 0.

    Args:
        agent: of this worker, as it is to begin or to go on. Worker 0's decides; the others' are overwritten.
        mode: "shared" or "synced".
        file: the common memory. Worker 0 makes it; for the others it must be there.
        index: which worker this is.
        workers: how many there are.
        frame: frames so far, of all workers; only worker 0's counts.
        opt_step: optimiser steps so far, of all workers; only worker 0's counts.
    """

    def __init__(
        self,
        agent: Agent,
        mode: Literal["shared", "synced"],
        file: Path,
        index: int,
        workers: int,
        frame: int = 0,
        opt_step: int = 0,
    ) -> None:
        self.agent, self.index = agent, index
        groups = [group for learner in agent.algorithm.learners.values() for group in learner.groups]
        trained = list({id(tensor): tensor for group in groups for tensor in group.parameters}.values())
        others = list(_others(agent.algorithm.modules.values(), trained))
        states = [_state_like(group) for group in groups]
        counts = [torch.zeros(workers, dtype=torch.int64) for _ in range(4 + len(groups))]
        begun = [torch.zeros(len(group.parameters), dtype=torch.int64) for group in groups]
        like = [*counts, *begun, *trained, *others]
        like += [tensor for state in states for entry in state for tensor in entry.values()]

        aside = file.with_name(f"{file.name}.new")
        views = iter(_make(aside, like) if index == 0 else _find(file, like))
        self._frames, self._opt_steps, self._done, self._spoilt, *events = (next(views).numpy() for _ in counts)
        begun_views = [next(views) for _ in begun]
        common = {id(tensor): next(views) for tensor in trained}
        for tensor in others:
            tensor.data = next(views)
        state_views = [[{name: next(views) for name in entry} for entry in state] for state in states]

        self._trained = list(common.values())
        if index == 0:
            self._frames[0], self._opt_steps[0] = frame, opt_step
        self._steps_before = agent.opt_steps - int(self._opt_steps[index])
        stepped = {}
        for tensor in trained:
            # a number, such as SAC's temperature, has no copies: that it is kept within bounds must count for all
            if mode == "synced" and tensor.dim() > 0:
                stepped[id(tensor)] = nn.Parameter(common[id(tensor)])
                tensor.data.copy_(common[id(tensor)])
            else:
                stepped[id(tensor)] = tensor
                tensor.data = common[id(tensor)]
        lock = _Lock(aside if index == 0 else file)
        self._steps = []
        for group, flags, state, counter in zip(groups, begun_views, state_views, events, strict=True):
            parameters = [stepped[id(tensor)] for tensor in group.parameters]
            step = _Step(group, parameters, state, flags, lock, keep=index == 0)
            group.take_step = step
            self._steps.append(step)
            _follow(group, counter, index, self.frame)
        if index == 0:
            aside.rename(file)  # who sees it sees it whole

    def count(self, num_envs: int) -> int:
        """Count a vector step of this worker; return the frames of all workers."""
        self._frames[self.index] += num_envs
        return self.frame

    @property
    def frame(self) -> int:
        """Frames of all workers."""
        return int(self._frames.sum())

    @property
    def opt_step(self) -> int:
        """Optimiser steps of all workers."""
        self._opt_steps[self.index] = self.agent.opt_steps - self._steps_before
        return int(self._opt_steps.sum())

    def done(self) -> bool:
        """Tell the others that this worker takes no more steps; return whether all have told so."""
        self._done[self.index] = 1
        return bool(self._done.all())

    def pull(self) -> None:
        """Take the common weights home."""
        for step in self._steps:
            step.pull()

    def spoil(self) -> None:
        """Tell the others that the weights are worth nothing any more."""
        self._spoilt[self.index] = 1

    def sound(self) -> bool:
        """Tell whether the weights are worth saving."""
        return not self._spoilt.any() and all(bool(view.isfinite().all()) for view in self._trained)


class _Step:
    """The step of an optimiser whose parameters and state are common.

    torch's optimisers make their state in their first step. So the first worker to step hands over what its optimiser
    made, and the others take that up; from then on it changes in place.

    Args:
        group: of this worker.
        parameters: the common ones; the group's own where these are common.
        state: per parameter, the tensors of the optimiser's state in the common memory.
        begun: per parameter, whether that state is there.
        lock: lets one worker at a time through.
        keep: hand over the state that the optimiser has.
    """

    def __init__(
        self,
        group: ParameterGroup,
        parameters: list[nn.Parameter],
        state: list[dict[str, Tensor]],
        begun: Tensor,
        lock: "_Lock",
        *,
        keep: bool,
    ) -> None:
        self.own, self.parameters, self.optimizer, self.lock = group.parameters, parameters, group.optimizer, lock
        self.alone = all(own is parameter for own, parameter in zip(self.own, parameters, strict=True))
        before = [self.optimizer.state.pop(own, {}) for own in self.own]
        (options,) = self.optimizer.param_groups
        options["params"] = parameters
        self.missing = list(zip(parameters, state, begun, strict=True))
        if keep:
            self.optimizer.state.update(zip(parameters, before, strict=True))
            self._hand_over()

    def __call__(self) -> None:
        if self.alone and not self.missing:
            take_step(self.optimizer)
            return
        with self.lock:
            self._take_up()
            for parameter, own in zip(self.parameters, self.own, strict=True):
                parameter.grad = own.grad
            take_step(self.optimizer)
            self._hand_over()
            self.pull()
        for own in self.own:
            own.grad = None  # the optimiser zeroes only those of its parameters

    @torch.no_grad()
    def pull(self) -> None:
        """Take the common weights home."""
        if not self.alone:
            torch._foreach_copy_(list[Tensor](self.own), list[Tensor](self.parameters))

    def _take_up(self) -> None:
        """Take the state that other workers handed over for the optimiser's own."""
        for parameter, views, begun in self.missing:
            if begun:
                self.optimizer.state[parameter] = dict(views)
        self._forget_what_is_there()

    def _hand_over(self) -> None:
        """Make the state that the optimiser has made common."""
        for parameter, views, begun in self.missing:
            if state := self.optimizer.state.get(parameter):
                for name, view in views.items():
                    view.copy_(state[name])
                self.optimizer.state[parameter] = dict(views)
                begun.fill_(1)
        self._forget_what_is_there()

    def _forget_what_is_there(self) -> None:
        self.missing = [entry for entry in self.missing if not entry[2]]


class _Lock:
    """Lets one process at a time through; the system releases it however the process ends."""

    def __init__(self, file: Path) -> None:
        self._handle = file.open("rb")

    def __enter__(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)


def _others(modules: Iterable[nn.Module], trained: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield every parameter and buffer of `modules` that is not `trained`, once."""
    seen = {id(tensor) for tensor in trained}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _follow(group: ParameterGroup, events: np.ndarray, index: int, frame: int) -> None:
    """Bring the learning rate up to date, and let a scheduler of torch count the training events of all workers."""
    schedule = group.scheduler
    if not isinstance(schedule, TorchScheduler) or schedule.scheduler is None:
        schedule.advance(frame)
        return
    scheduler = schedule.scheduler
    if index == 0:
        events[0] = scheduler.last_epoch

    def behind() -> int:
        return int(events.sum()) - scheduler.last_epoch

    def one_more() -> int:
        events[index] += 1
        return behind()

    schedule.events = behind
    schedule.advance(frame)
    schedule.events = one_more


def _state_like(group: ParameterGroup) -> list[dict[str, Tensor]]:
    """Return, per parameter, tensors like those that the group's optimiser will keep: a copy of it takes a step."""
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in group.parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    optimizer = make_optimizer(copies, group.optim_spec)
    take_step(optimizer)
    return [dict(optimizer.state[copy]) for copy in copies]


def _make(file: Path, like: Sequence[Tensor]) -> list[Tensor]:
    """Make the common memory, filled with `like`; return it as tensors of those shapes."""
    np.zeros(_nbytes(like), np.uint8).tofile(file)  # written, not only mapped: a full disk says so here
    views = _views(file, like)
    for view, tensor in zip(views, like, strict=True):
        view.copy_(tensor)
    return views


def _find(file: Path, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the common memory that another worker made."""
    if file.stat().st_size != _nbytes(like):
        raise RuntimeError(f"{file}: another worker has other nets; do all see the same environment?")
    return _views(file, like)


def _views(file: Path, like: Sequence[Tensor]) -> list[Tensor]:
    memory = torch.from_file(str(file), shared=True, size=_nbytes(like), dtype=torch.uint8)
    views, start = [], 0
    for tensor in like:
        views.append(memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _padded(tensor)
    return views


def _nbytes(like: Sequence[Tensor]) -> int:
    return sum(_padded(tensor) for tensor in like)


def _padded(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
