"""The `agent.memory` part of a spec: one model per memory."""

from typing import Literal, Self

from pydantic import model_validator

from slm_lab.spec.model import Count, Section, problem


class MemorySpec(Section):
    """What every memory has: a name."""

    name: str
    """The memory."""


class OnPolicyReplay(MemorySpec):
    """Whole episodes, used once. A batch is training_frequency finished episodes, over all environments."""

    name: Literal["OnPolicyReplay"] = "OnPolicyReplay"
    """The memory."""


class OnPolicyBatchReplay(MemorySpec):
    """A rollout of every environment, used once. A batch is training_frequency (PPO: time_horizon) vector steps."""

    name: Literal["OnPolicyBatchReplay"] = "OnPolicyBatchReplay"
    """The memory."""


class Replay(MemorySpec):
    """The newest transitions, drawn from uniformly."""

    name: Literal["Replay"] = "Replay"
    """The memory."""
    batch_size: Count
    """Transitions in a batch."""
    max_size: Count
    """Transitions kept, over all environments; the oldest make room."""
    use_cer: bool = False
    """Put the newest transitions into every batch: combined experience replay, arXiv:1712.01275."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.max_size < self.batch_size:
            raise problem("max_size", f"{self.max_size} is less than a batch of {self.batch_size}; make it larger")
        return self


MEMORIES: dict[str, type[MemorySpec]] = {
    "OnPolicyReplay": OnPolicyReplay,
    "OnPolicyBatchReplay": OnPolicyBatchReplay,
    "Replay": Replay,
}
PLANNED_MEMORIES = ("PrioritizedReplay", "OnPolicyCrossEntropy")
