"""What self-imitation learns from: what the present policy does, and past episodes with what came of them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.memory.rollout import OnPolicyBatchReplay, OnPolicyReplay, RolloutBatch

if TYPE_CHECKING:
    from slm_lab.agent.memory import Memory
    from slm_lab.env.vec_env import Step

OnPolicy = OnPolicyBatchReplay | OnPolicyReplay


class SelfImitationMemory:
    """An on-policy memory, and a replay of the (obs, action, return) of finished episodes.

    Nobody knows a return before its episode ends: until then, episodes lie whole in a memory of their own. `finished`
    hands them out once; the algorithm finds their returns, and adds them to the replay in the place of rewards.

    Args:
        on_policy: of the on-policy half of the algorithm, which samples it.
        episodes: an OnPolicyReplay on the CPU; holds the episodes under way.
        past: a replay for one environment: episodes are stored one after another, each frame once.
    """

    def __init__(self, on_policy: OnPolicy, episodes: OnPolicy, past: Replay) -> None:
        self.on_policy, self.episodes, self.past = on_policy, episodes, past

    def add(self, obs: np.ndarray, action: np.ndarray, step: "Step") -> None:
        """Store one transition of every environment, by copy (see the memories)."""
        self.on_policy.add(obs, action, step)
        self.episodes.add(obs, action, step)

    def interrupt(self) -> None:
        """Drop what is under way: it was left where it stood."""
        self.on_policy.interrupt()
        self.episodes.interrupt()

    def finished(self) -> RolloutBatch | None:
        """Hand out the episodes that finished since the last time, one after another [T, 1, ...]; None if none did."""
        return self.episodes.sample() if self.episodes.ready else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly. The tensors are views: use them before the next `add`."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; ValueError where it comes from memories of other sizes."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> "dict[str, Memory]":
        return {"on_policy": self.on_policy, "episodes": self.episodes, "past": self.past}
