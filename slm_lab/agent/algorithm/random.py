"""A policy that does not learn: the floor that every other one has to leave."""

from typing import Any

import gymnasium as gym
import numpy as np

from slm_lab.agent.algorithm.base import Setting
from slm_lab.spec import AgentSpec


class Random:
    """Draws actions uniformly from the action space (from a standard normal where it has no bounds).

    Example:
        "algorithm": {"name": "Random"}
    """

    logged = ()

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:  # noqa: ARG002
        self.space = setting.action_space
        self.memory, self.modules, self.learners = None, {}, {}
        self.generators = {"action": setting.rng("action")}

    def act(self, obs: np.ndarray, frame: int, explore: bool = True) -> np.ndarray:  # noqa: ARG002
        """Draw one action for each observation."""
        return random_actions(self.space, len(obs), self.generators["action"])

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Never learn."""
        return False

    def update(self, frame: int) -> dict[str, float]:  # noqa: ARG002
        """Do nothing."""
        return {}

    def variables(self, frame: int) -> dict[str, float]:  # noqa: ARG002
        """Schedule nothing."""
        return {}


def random_actions(space: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` actions drawn uniformly from `space`, from a standard normal where it has no bounds."""
    match space:
        case gym.spaces.Discrete():
            return rng.integers(space.n, size=count)
        case gym.spaces.MultiDiscrete():
            return rng.integers(space.nvec, size=(count, *space.shape))
        case gym.spaces.MultiBinary():
            return rng.integers(2, size=(count, *space.shape))
    if not np.isfinite(space.high - space.low).all():
        return rng.standard_normal((count, *space.shape), np.float32)
    return rng.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32)
