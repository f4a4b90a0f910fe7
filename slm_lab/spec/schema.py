"""The spec: every key, its type, its unit, its range.

Units: a *frame* is one step of one environment, so a vector step is `num_envs` frames (Atari's frame skip is not
counted); an *event* is one call of an algorithm's update.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from slm_lab.spec.algorithm import (
    ALGORITHMS,
    DQN,
    PPO,
    PPOSIL,
    SARSA,
    SIL,
    VALUE_DISTRIBUTIONS,
    ActorCritic,
    DoubleDQN,
    Random,
    Reinforce,
    VanillaDQN,
    VarSpec,
)
from slm_lab.spec.env import EnvSpec
from slm_lab.spec.errors import SpecError
from slm_lab.spec.memory import (
    MEMORIES,
    MemorySpec,
    OnPolicyBatchReplay,
    OnPolicyCrossEntropy,
    OnPolicyReplay,
    PrioritizedReplay,
    Replay,
)
from slm_lab.spec.model import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Section,
    Several,
    as_spec_error,
    either,
    one_of,
    problem,
)
from slm_lab.spec.net import (
    NETS,
    ConvNet,
    HydraMLPNet,
    MLPNet,
    NetSpec,
    OutsideNet,
    RecurrentNet,
    TorchArcNet,
)

__all__ = [
    "DQN",
    "PPO",
    "PPOSIL",
    "SARSA",
    "SIL",
    "ActorCritic",
    "AgentSpec",
    "ConvNet",
    "DoubleDQN",
    "EnvSpec",
    "HydraMLPNet",
    "MLPNet",
    "MemorySpec",
    "MetaSpec",
    "NetSpec",
    "OnPolicyBatchReplay",
    "OnPolicyCrossEntropy",
    "OnPolicyReplay",
    "OutsideNet",
    "PrioritizedReplay",
    "Random",
    "RecurrentNet",
    "Reinforce",
    "Replay",
    "Spec",
    "TorchArcNet",
    "VanillaDQN",
    "VarSpec",
]

if TYPE_CHECKING:  # which of the models a part is, is known at run time only
    AnyAlgorithm = AnyMemory = AnyNet = Any
else:
    AnyAlgorithm = one_of("algorithm", "name", ALGORITHMS)
    AnyMemory = one_of("memory", "name", MEMORIES) | None
    AnyNet = one_of("net", "type", NETS, OutsideNet) | None


class AgentSpec(Section):
    """Who learns: an algorithm, its memory, its net."""

    name: str = "agent"
    """A label; nothing depends on it."""
    algorithm: AnyAlgorithm
    """How it acts and learns; the kind is its `name`."""
    memory: AnyMemory = None
    """What it learns from; the kind is its `name`. Random has none."""
    net: AnyNet = None
    """What it learns with; the kind is its `type`. Random has none."""
    critic_net: AnyNet = None
    """Net of the critics of SoftActorCritic, CrossQ and TD3, where it is another than the policy's; null: by `net`."""

    @model_validator(mode="after")
    def _check_memory_and_net(self) -> Self:
        name, memories = self.algorithm.name, self.algorithm.memories
        suited = " or ".join(memories)
        if not memories:
            for key in ("memory", "net", "critic_net"):
                if getattr(self, key) is not None:
                    raise problem(key, f"{name} has none; remove it")
            return self
        if self.memory is None:
            raise problem("memory", f"missing; {name} needs {suited}")
        if self.memory.name not in memories:
            raise problem("memory.name", f"{self.memory.name} does not suit {name}; use {suited}")
        if self.net is None:
            raise problem("net", f"missing; {name} needs one of {', '.join(NETS)}")
        if self.critic_net is not None and not self.algorithm.has_critic_net:
            raise problem("critic_net", f"{name} has none; give keys critic_… of net instead, or remove it")
        return self

    @property
    def critics(self) -> tuple[str, Any]:
        """Which key holds the spec of the critics' net, and that spec."""
        return ("net", self.net) if self.critic_net is None else ("critic_net", self.critic_net)


class SearchScheduler(Section):
    """What stops bad trials of a search early: each is judged at some frames, by the mean over its seeds."""

    name: Literal["asha", "median"] = "asha"
    """asha: only the best go on, one in reduction_factor (successive halving, arXiv 1810.05934); median: those go on
    that are as good as the median of the others at this frame."""
    grace_period: Count | None = None
    """Frames before the first judgement; null: a tenth of max_frame. With asha the frames of a judgement are
    reduction_factor times those of the one before, with median a grace_period more."""
    reduction_factor: Several = 4
    """Of asha."""


class SearchResources(Section):
    """What a session of a search takes."""

    cpu: Positive = 1
    """Cores; its threads, where that is more than one."""
    gpu: NotNegative | None = None
    """GPUs, also a share of one; null: none where net.gpu is false or there is none, else as much as lets the GPUs hold
    as many sessions as the cores do."""


class MetaSpec(Section):
    """How often: sessions, logging, evaluation, search."""

    distributed: Annotated[
        Literal[False, "synced", "shared"],
        BeforeValidator(lambda value: value or False),  # null, in older files
        either('false, "synced" or "shared"'),
    ] = False
    """false: each session trains an agent of its own. Else the sessions are workers that train one, and frames and
    optimiser steps are counted over all of them; synced: each has nets of its own, hands its gradients over and takes
    the weights back; shared: all have the same nets in one memory, without locks."""
    log_frequency: Count = 10_000
    """Frames between two rows of the training curve, and between two checkpoints."""
    eval_frequency: Count = 10_000
    """Frames between two evaluations; counts only with rigorous_eval."""
    rigorous_eval: Natural = 0
    """Episodes of an evaluation in environments of its own; 0: none, the training curve is the result."""
    max_session: Count = 1
    """Sessions of a trial: the same spec, each with a seed of its own."""
    max_trial: Count | None = None
    """Trials of a search; null: all of a grid, and where nothing is searched."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products inside the nets. bfloat16 is faster on machines that have it, and keeps 3 digits; weights,
    optimisers, losses and what the nets put out are float32 all the same; and so are small nets where they act."""
    seed: Natural | None = None
    """What every random stream derives from; null: drawn once, and written into the run's spec."""
    search_algorithm: Literal["tpe", "random", "grid", "cma-es", "nsga", "pbt"] | None = None
    """What chooses the trials of a search; null: grid where all is grid_search, else tpe. nsga weighs the score against
    env.max_frame, which must be searched then; pbt: the trials are a population, of which at every grace_period of
    search_scheduler the worst quarter takes over the best (arXiv 1711.09846)."""
    search_scheduler: SearchScheduler | None = None
    """What stops bad trials of a search early; null: nothing."""
    search_resources: SearchResources = SearchResources()
    """What a session of a search takes of the machine."""

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.distributed and self.max_session < 2:
            text = f'"{self.distributed}" needs a max_session of 2 or more, got {self.max_session}; or set it to false'
            raise problem("distributed", text)
        return self

    def at_once(self, cores: int) -> int:
        """Return how many sessions run at once on so many cores: workers of one agent all do."""
        return self.max_session if self.distributed else min(self.max_session, cores)


class Spec(Section):
    """The whole truth about a run, checked and frozen."""

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    """Names the run and its files: letters, digits, _ . + -."""
    agent: AgentSpec
    """Who learns: algorithm, memory, net."""
    env: EnvSpec
    """Where: the environment."""
    meta: MetaSpec = MetaSpec()
    """How often."""
    search: dict[str, Any] = Field(default_factory=dict)
    """Search space: {path__distribution: arguments}, e.g. "agent.net.optim_spec.lr__loguniform": [1e-4, 1e-2]."""

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        self.agent.algorithm.check(self.agent, self.env)
        for net in (self.agent.net, self.agent.critic_net):
            if net is not None:
                net.check(self.agent)
        if self.meta.distributed:
            self._check_distributed()
        for key, arguments in self.search.items():
            path, _, distribution = key.rpartition("__")
            if not path or not distribution:
                raise problem(
                    f"search.{key}", "must be a path and a distribution, as in agent.algorithm.gamma__uniform"
                )
            if not isinstance(arguments, list):
                raise problem(f"search.{key}", f"must be a list of arguments of {distribution}")
        return self

    def _check_distributed(self) -> None:
        mode, net = self.meta.distributed, self.agent.net
        if net is None:
            raise problem(
                "meta.distributed", f"{self.agent.algorithm.name} has no net to train together; set it to false"
            )
        if net.gpu is True:
            raise problem(
                "agent.net.gpu",
                f'true, but the workers of meta.distributed "{mode}" share memory of the CPU; set it to false',
            )

    @classmethod
    def from_dict(cls, name: str, raw: Mapping[str, Any]) -> Self:
        """Check a resolved spec in the current form (see `load_spec` for files).

        Raises:
            SpecError: one line: the dotted path, what is wrong, what to do.
        """
        if not isinstance(raw, Mapping):
            raise SpecError(f"{name}: a spec is an object with agent, env and meta, not {type(raw).__name__}")
        try:
            return cls.model_validate({**raw, "name": name})
        except ValidationError as error:
            raise as_spec_error(error, {*ALGORITHMS, *MEMORIES, *NETS, *VALUE_DISTRIBUTIONS}) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec with every default filled in, as JSON can hold it; without its name."""
        return self.model_dump(mode="json", exclude={"name"})

    @cached_property
    def hash(self) -> str:
        """12 hex digits that change with anything in `to_dict`."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def with_meta(self, **changes: Any) -> Self:
        """Return a copy with other values in `meta`."""
        raw = self.to_dict()
        return self.from_dict(self.name, {**raw, "meta": {**raw["meta"], **changes}})
