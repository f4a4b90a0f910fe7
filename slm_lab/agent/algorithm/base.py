"""What the algorithms have in common: where they are built, and what the lab asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import gymnasium as gym
import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm.estimator import successor_value
from slm_lab.agent.memory import Memory, OnPolicyBatchReplay, OnPolicyReplay, Replay, RolloutBatch, make_memory
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.learner import Learner, Loss, ParameterGroup
from slm_lab.lib.rng import derive_seed
from slm_lab.lib.schedule import Schedule, make_schedule
from slm_lab.spec import AgentSpec, NetSpec, SpecError, VarSpec

CHUNK = 2048
"""Rows that go through a net at once when no gradient is wanted: bounds the memory, and images need little of it."""


@dataclass(frozen=True)
class Setting:
    """Where an algorithm is built: the spaces of one environment, how many there are, the device and the seed."""

    obs_space: gym.Space
    action_space: gym.Space
    num_envs: int
    frame_stack: int
    seed: int
    device: torch.device
    compile_loss: bool = False

    def generator(self, name: str) -> torch.Generator:
        """Return the random stream called `name`."""
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, name))

    def scalar(self, value: float) -> Tensor:
        """Return `value` as a tensor: an argument that changes must not make a compiled loss compile again."""
        return torch.tensor(value, dtype=torch.float32, device=self.device)

    @overload
    def memory(self, spec: AgentSpec) -> Replay: ...

    @overload
    def memory(self, spec: AgentSpec, horizon: int) -> OnPolicyBatchReplay | OnPolicyReplay: ...

    def memory(self, spec: AgentSpec, horizon: int | None = None) -> Any:
        """Build the memory of `spec`; `horizon` is the size of an on-policy batch, in vector steps or episodes."""
        return make_memory(
            spec.memory,
            obs_space=self.obs_space,
            action_space=self.action_space,
            num_envs=self.num_envs,
            frame_stack=self.frame_stack,
            device=self.device,
            seed=derive_seed(self.seed, "memory"),
            horizon=horizon,
            gamma=spec.algorithm.gamma,
        )

    def actor_critic(self, spec: AgentSpec, critic: bool = True) -> ActorCritic:
        """Build policy and value nets; the same seed gives the same weights."""
        net = ActorCritic(spec.net, self.obs_space, self.action_space, spec.algorithm.action_pdtype, critic=critic)
        return net.to(self.device)

    def learner(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup]) -> Learner:
        """Build the optimiser step."""
        return Learner(loss, nets, groups, compile_loss=self.compile_loss)


class Algorithm(Protocol):
    """An algorithm: how it acts, when it learns, how it learns.

    Attributes:
        memory: what it remembers; None if nothing.
        modules: every net by name, trained or not: what a checkpoint saves.
        learners: every optimiser step by name.
        generators: every random stream by name.
        logged: names of the metrics that the training curve has a column for.
    """

    memory: Memory | None
    modules: Mapping[str, nn.Module]
    learners: Mapping[str, Learner]
    generators: Mapping[str, torch.Generator]
    logged: tuple[str, ...]

    def act(self, obs: Tensor, frame: int, explore: bool = True) -> Tensor:
        """Choose actions [N, ...] for obs [N, ...]; without `explore`, the best known ones."""
        ...

    def ready(self, frame: int) -> bool:
        """Tell whether it is time to learn."""
        ...

    def update(self, frame: int) -> dict[str, float]:
        """Learn; return the means of loss and other metrics."""
        ...

    def variables(self, frame: int) -> dict[str, float]:
        """Return the scheduled values (explore_var, entropy_coef, clip_eps) at `frame`."""
        ...


def actor_critic_groups(net: ActorCritic, spec: NetSpec) -> list[ParameterGroup]:
    """Return one parameter group for a shared net; for separate ones, one each by the spec of its role."""
    if spec.shared:
        return [ParameterGroup(net.parameters(), spec)]
    critic_spec = spec.for_role("actor" if spec.use_same_optim else "critic")
    return [
        ParameterGroup(net.actor_parameters(), spec.for_role("actor")),
        ParameterGroup(net.critic_parameters(), critic_spec),
    ]


def flatten(*tensors: Tensor) -> list[Tensor]:
    """Merge time and environments: [T, N, ...] -> [T*N, ...]."""
    return [tensor.flatten(0, 1) for tensor in tensors]


def mean_metrics(metrics: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Average the metrics of several gradient steps: one look at the device, however many there were."""
    names = list(metrics[0])
    table = torch.stack([torch.stack([row[name].float() for name in names]) for row in metrics])
    return dict(zip(names, table.mean(0).tolist(), strict=True))


def require_discrete(space: gym.Space, algorithm: str) -> int:
    """Return the number of actions; an algorithm that needs a discrete space says so where the space is another."""
    if not isinstance(space, gym.spaces.Discrete):
        raise SpecError(
            f"agent.algorithm.name: {algorithm} needs discrete actions, but the environment has {space}; "
            "use ActorCritic or PPO, or another environment"
        )
    return int(space.n)


def scheduled(spec: VarSpec | None) -> Schedule:
    """Return the schedule that `spec` describes; always 0 where there is none."""
    return make_schedule(**spec.model_dump()) if spec is not None else lambda _frame: 0.0


@torch.no_grad()
def values_and_log_probs(net: ActorCritic, batch: RolloutBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate a rollout in one pass after it is collected.

    Returns:
        value V(s_t), next value V(s_{t+1}) of the true successors, and log-probability of the actions, each [T, N].
    """
    obs, action = flatten(batch.obs, batch.action)
    parts, log_probs = [], []
    for obs_part, action_part in zip(obs.split(CHUNK), action.split(CHUNK), strict=True):
        policy, value = net.policy_value(obs_part)
        parts.append(value)
        log_probs.append(policy.log_prob(action_part))
    value = torch.cat(parts).view_as(batch.reward)
    return value, _next_value(net, batch, value), torch.cat(log_probs).view_as(batch.reward)


@torch.no_grad()
def values(net: ActorCritic, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """Return the value V(s_t) and the next value V(s_{t+1}) of the true successors of a rollout, each [T, N]."""
    parts = [net.value(part) for part in batch.obs.flatten(0, 1).split(CHUNK)]
    value = torch.cat(parts).view_as(batch.reward)
    return value, _next_value(net, batch, value)


def _next_value(net: ActorCritic, batch: RolloutBatch, value: Tensor) -> Tensor:
    after = net.value(torch.cat([batch.last_obs, batch.final_obs]))
    num_envs = value.shape[1]
    return successor_value(value, after[:num_envs], batch.ended, after[num_envs:])
