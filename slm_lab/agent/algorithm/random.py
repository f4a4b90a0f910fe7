"""A policy that does not learn: the floor that every other one has to leave."""

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

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
        self.generators = {"action": setting.generator("action")}

    def act(self, obs: Tensor, frame: int, explore: bool = True) -> Tensor:  # noqa: ARG002
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


def random_actions(space: Any, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` actions drawn uniformly from `space`, from a standard normal where it has no bounds."""
    random: dict[str, Any] = {"generator": generator, "device": generator.device}
    match space:
        case gym.spaces.Discrete():
            return torch.randint(int(space.n), (count,), **random)
        case gym.spaces.MultiDiscrete():
            sizes = torch.as_tensor(space.nvec, device=generator.device)
            return (torch.rand(count, *sizes.shape, **random) * sizes).long()
        case gym.spaces.MultiBinary():
            return torch.randint(2, (count, *space.shape), **random)
    low, high = (torch.as_tensor(bound, device=generator.device) for bound in (space.low, space.high))
    if not torch.isfinite(high - low).all():
        return torch.randn(count, *space.shape, **random)
    return low + (high - low) * torch.rand(count, *space.shape, **random)
