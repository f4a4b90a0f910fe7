"""Memories: what an algorithm learns from."""

from typing import Any

import gymnasium as gym
import torch

from slm_lab.agent.memory.columns import plan_bytes
from slm_lab.agent.memory.prioritized import PrioritizedReplay
from slm_lab.agent.memory.replay import Replay, ReplayBatch
from slm_lab.agent.memory.rollout import OnPolicyBatchReplay, OnPolicyCrossEntropy, OnPolicyReplay, RolloutBatch
from slm_lab.agent.memory.self_imitation import SelfImitationMemory
from slm_lab.lib.schedule import make_schedule
from slm_lab.spec import MemorySpec, schema

__all__ = [
    "Memory",
    "OnPolicyBatchReplay",
    "OnPolicyCrossEntropy",
    "OnPolicyReplay",
    "PrioritizedReplay",
    "Replay",
    "ReplayBatch",
    "RolloutBatch",
    "SelfImitationMemory",
    "make_memory",
    "memory_nbytes",
]

Memory = Replay | OnPolicyBatchReplay | OnPolicyReplay | SelfImitationMemory


def make_memory(
    spec: MemorySpec,
    *,
    obs_space: gym.Space,
    action_space: gym.Space,
    num_envs: int,
    frame_stack: int = 1,
    device: torch.device | str = "cpu",
    seed: int = 0,
    horizon: int | None = None,
    gamma: float = 1.0,
    num_steps: int = 1,
    convolved: bool = False,
) -> Memory:
    """Build the memory that `agent.memory` describes.

    Args:
        spec: the memory's part of the spec.
        obs_space: space of one environment's observations, as the agent sees them.
        action_space: space of one environment's actions.
        num_envs: environments.
        frame_stack: frames in an observation, `VecEnv.frame_stack`.
        device: where batches go.
        seed: of the sampling.
        horizon: the algorithm's training frequency: vector steps for OnPolicyBatchReplay, finished episodes for
            OnPolicyReplay and OnPolicyCrossEntropy; a replay needs none.
        gamma: discount of the reward one step later; only a replay reads it.
        num_steps: how many steps on a transition leads; only a replay reads it.
        convolved: whether observations are images that go through convolutions first; a replay does not read it.
    """
    if isinstance(spec, schema.Replay | schema.PrioritizedReplay):
        replay: dict[str, Any] = {
            "obs_space": obs_space,
            "action_space": action_space,
            "num_envs": num_envs,
            "max_size": spec.max_size,
            "batch_size": spec.batch_size,
            "gamma": gamma,
            "num_steps": num_steps,
            "frame_stack": frame_stack,
            "use_cer": spec.use_cer,
            "device": device,
            "seed": seed,
        }
        if isinstance(spec, schema.Replay):
            return Replay(**replay)
        beta = make_schedule(**spec.beta_spec.model_dump())
        return PrioritizedReplay(alpha=spec.alpha, epsilon=spec.epsilon, beta=beta, **replay)
    if horizon is None:
        raise ValueError(f"{spec.name} needs a horizon")
    sizes: dict[str, Any] = {
        "obs_space": obs_space,
        "action_space": action_space,
        "num_envs": num_envs,
        "device": device,
        "convolved": convolved,
    }
    if isinstance(spec, schema.OnPolicyBatchReplay):
        return OnPolicyBatchReplay(horizon=horizon, **sizes)
    if isinstance(spec, schema.OnPolicyCrossEntropy):
        return OnPolicyCrossEntropy(episodes=horizon, cross_entropy=spec.cross_entropy, **sizes)
    return OnPolicyReplay(episodes=horizon, **sizes)


def memory_nbytes(
    spec: MemorySpec,
    *,
    obs_space: gym.Space,
    action_space: gym.Space,
    num_envs: int,
    frame_stack: int = 1,
    horizon: int | None = None,
) -> int:
    """Return the bytes that `make_memory` would allocate, without allocating them (see there for the arguments).

    Memories of whole episodes grow with the longest of them: for these, this is what they begin with.
    """
    if isinstance(spec, schema.Replay | schema.PrioritizedReplay):
        kind = Replay if isinstance(spec, schema.Replay) else PrioritizedReplay
        return plan_bytes(kind.plan(obs_space, action_space, num_envs, spec.max_size, frame_stack))
    rows = horizon if isinstance(spec, schema.OnPolicyBatchReplay) else OnPolicyReplay.FIRST_ROWS
    if rows is None:
        raise ValueError(f"{spec.name} needs a horizon")
    return plan_bytes(OnPolicyBatchReplay.plan(obs_space, action_space, num_envs, rows))
