"""The `agent.memory` part of a spec: one model per memory."""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from slm_lab.spec.algorithm import VarSpec
from slm_lab.spec.model import Count, NotNegative, Positive, Section, Share, one_of, problem


class MemorySpec(Section):
    """What every memory has: a name."""

    name: str
    """The memory."""


class ReplaySpec(MemorySpec):
    """Keys of the memories that keep the newest transitions."""

    batch_size: Count
    """Transitions in a batch."""
    max_size: Count
    """Transitions kept, over all environments; the oldest make room."""
    use_cer: bool = False
    """Put the newest transitions into every batch: combined experience replay, arXiv:1712.01275."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.max_size < self.batch_size:
            text = f"{self.max_size} is less than batch_size {self.batch_size}; make it larger, or batch_size smaller"
            raise problem("max_size", text)
        return self


class Replay(ReplaySpec):
    """The newest transitions, drawn from uniformly."""

    name: Literal["Replay"] = "Replay"
    """The memory."""


class PrioritizedReplay(ReplaySpec):
    """The newest transitions, drawn from by how far off their values were, Schaul et al. 2016, arXiv:1511.05952."""

    name: Literal["PrioritizedReplay"] = "PrioritizedReplay"
    """The memory."""
    alpha: NotNegative = 0.6
    """Exponent of the priorities; 0: all transitions are as likely."""
    epsilon: Positive = 1e-4
    """What is added to each error, so that every transition can be drawn."""
    beta_spec: VarSpec
    """Exponent of the importance weights over frames, 0 (none) to 1 (in full). Left out of a file, it goes straight
    from 0.4 to 1 at env.max_frame."""

    @model_validator(mode="after")
    def _check_beta(self) -> Self:
        self.beta_spec.check_range("beta_spec", 0.0, 1.0)
        return self


REPLAYS: dict[str, type[ReplaySpec]] = {"Replay": Replay, "PrioritizedReplay": PrioritizedReplay}

if TYPE_CHECKING:  # which of the models it is, is known at run time only
    AnyReplay = Any
else:
    AnyReplay = one_of("replay", "name", REPLAYS) | None


class OnPolicyReplay(MemorySpec):
    """Whole episodes, used once. A batch is training_frequency finished episodes, over all environments."""

    name: Literal["OnPolicyReplay"] = "OnPolicyReplay"
    """The memory."""
    sil_replay: AnyReplay = None
    """Of SIL: the replay of past steps, Replay or PrioritizedReplay with its keys."""


class OnPolicyBatchReplay(MemorySpec):
    """A rollout of every environment, used once. A batch is training_frequency (PPO: time_horizon) vector steps."""

    name: Literal["OnPolicyBatchReplay"] = "OnPolicyBatchReplay"
    """The memory."""
    sil_replay: AnyReplay = None
    """Of SIL and PPOSIL: the replay of past steps, Replay or PrioritizedReplay with its keys."""


class OnPolicyCrossEntropy(MemorySpec):
    """Whole episodes, used once, and only the best of every training_frequency finished ones: cross-entropy method."""

    name: Literal["OnPolicyCrossEntropy"] = "OnPolicyCrossEntropy"
    """The memory."""
    cross_entropy: Share = 1.0
    """An episode is used if its return is at least this quantile of the batch's, 0 to 1; 1: the best alone."""


MEMORIES: dict[str, type[MemorySpec]] = {
    "OnPolicyReplay": OnPolicyReplay,
    "OnPolicyBatchReplay": OnPolicyBatchReplay,
    "OnPolicyCrossEntropy": OnPolicyCrossEntropy,
    "Replay": Replay,
    "PrioritizedReplay": PrioritizedReplay,
}
