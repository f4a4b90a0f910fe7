"""What a session will take: sizes of nets and memory, found without making either."""

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from slm_lab.agent.algorithm import Setting, make_algorithm
from slm_lab.agent.memory import memory_nbytes
from slm_lab.env import make_env
from slm_lab.spec import AgentSpec, Spec
from slm_lab.spec.search_space import SearchSpace

CGROUP = Path("/sys/fs/cgroup")
MAX_TRIED = 16


@dataclass(frozen=True)
class Size:
    """What a session takes.

    Attributes:
        parameters: net → number of parameters.
        memory_bytes: of the agent's memory; 0 if it has none.
    """

    parameters: dict[str, int]
    memory_bytes: int


@dataclass(frozen=True)
class _Plan(Setting):
    """A setting where nothing is made: memories are only measured, and there are no numbers to draw."""

    memory_bytes: list[int] = field(default_factory=list)

    def generator(self, name: str) -> torch.Generator:  # noqa: ARG002 - the meta device has no generators
        return torch.Generator()

    def memory(self, spec: AgentSpec, horizon: int | None = None, num_steps: int = 1) -> Any:  # noqa: ARG002
        # nothing stands in for it: an algorithm that is built to be measured never acts
        nbytes = memory_nbytes(
            spec.memory,
            obs_space=self.obs_space,
            action_space=self.action_space,
            num_envs=self.num_envs,
            frame_stack=self.frame_stack,
            horizon=horizon,
        )
        self.memory_bytes.append(nbytes)


def measure(spec: Spec) -> Size:
    """Measure a spec.

    Its algorithm is built as for a run, so what would fail there fails here; but its nets are on torch's meta device,
    which has shapes and no numbers.

    Raises:
        SpecError: the spec does not fit its environment, or names what torch does not have.
    """
    env = make_env(spec.env, seed=0, num_envs=1)
    env.close()
    meta = torch.device("meta")
    plan = _Plan(env.obs_space, env.action_space, spec.env.num_envs, env.frame_stack, seed=0, device=meta)
    with meta:
        algorithm = make_algorithm(spec.agent, plan)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in algorithm.modules.items()}
    parameters = {name: count for name, count in parameters.items() if count}  # running scales have none
    return Size(parameters, sum(plan.memory_bytes))


def measure_search(spec: Spec) -> Size:
    """Measure a spec that searches, and some of the specs that it comes to, in which every end stands at least once.

    Raises:
        SpecError: `measure` refuses the spec itself, or what one of the ends comes to, whatever the other values are.
    """
    size = measure(spec)
    try_ends(spec)
    return size


def try_ends(spec: Spec) -> None:
    """Measure some of the specs that a search comes to; see `measure_search`."""
    space = SearchSpace(spec)
    space.refuse_bad(itertools.islice(space.each_end(), MAX_TRIED), lambda values: measure(space.apply(values)))


def free_memory() -> int | None:
    """Return the bytes of main memory that may still be taken; None where the system does not say."""
    known = [free for free in (_free_of_machine(), _free_of_cgroup()) if free is not None]
    return min(known, default=None)


def _free_of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _free_of_cgroup() -> int | None:
    """Return what a container may still take; None without a limit."""
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no cgroup of version 2; or the limit is "max"
        return None
    return max(limit - used, 0)
