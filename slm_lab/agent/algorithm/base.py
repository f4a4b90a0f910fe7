"""What the algorithms have in common: where they are built, and what the lab asks of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm.estimator import successor_value
from slm_lab.agent.algorithm.recurrence import HiddenState, from_chunks, in_chunks
from slm_lab.agent.memory import Memory, OnPolicyBatchReplay, OnPolicyReplay, Replay, RolloutBatch, make_memory
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.build import Net
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.lib.clock import crossed
from slm_lab.lib.rng import derive_seed
from slm_lab.lib.schedule import Schedule, make_schedule
from slm_lab.spec import AgentSpec, NetSpec, SpecError, VarSpec
from slm_lab.spec.net import Convolutional

if TYPE_CHECKING:
    from slm_lab.lib.rng import Stream

OF_EPISODES = ("OnPolicyReplay", "OnPolicyCrossEntropy")
"""Memories whose batches are whole episodes, and so of any length."""
ROWS_AT_ONCE, NUMBERS_AT_ONCE = 2048, 2**23
"""Observations, and numbers in them (32 MiB), that go through a net at once where no gradient is wanted: bounds the
memory."""


@dataclass(frozen=True)
class Setting:
    """Where an algorithm is built: the spaces of one environment, how many there are, the device and the seed."""

    obs_space: gym.Space
    action_space: gym.Space
    num_envs: int
    frame_stack: int
    seed: int
    device: torch.device

    def generator(self, name: str) -> torch.Generator:
        """Return the random stream called `name`."""
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, name))

    def rng(self, name: str) -> np.random.Generator:
        """Return the random stream called `name`, for what is drawn while acting."""
        return np.random.default_rng(derive_seed(self.seed, name))

    def scalar(self, value: float) -> Tensor:
        """Return `value` as a tensor: an argument that changes must not make a compiled loss compile again."""
        return torch.tensor(value, dtype=torch.float32, device=self.device)

    @overload
    def memory(self, spec: AgentSpec, *, num_steps: int = 1) -> Replay: ...

    @overload
    def memory(self, spec: AgentSpec, horizon: int) -> OnPolicyBatchReplay | OnPolicyReplay: ...

    def memory(self, spec: AgentSpec, horizon: int | None = None, num_steps: int = 1) -> Any:
        """Build the memory of `spec`.

        Args:
            spec: the agent's.
            horizon: size of an on-policy batch, in vector steps or episodes.
            num_steps: how many steps on a transition of a replay leads.
        """
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
            num_steps=num_steps,
            convolved=isinstance(spec.net, Convolutional),
        )

    def time_to_replay(self, spec: Any, memory: Replay, frame: int) -> bool:
        """Tell whether to learn from a replay: every `training_frequency` frames once `training_start_step` are in."""
        due = crossed(frame, self.num_envs, spec.training_frequency)
        return due and frame >= spec.training_start_step and memory.size > 0

    def actor_critic(self, spec: AgentSpec, critic: bool = True) -> ActorCritic:
        """Build policy and value nets; the same seed gives the same weights."""
        net = ActorCritic(spec.net, self.obs_space, self.action_space, spec.algorithm.action_pdtype, critic=critic)
        return net.to(self.device)

    def hidden_state(self, spec: AgentSpec, net: ActorCritic | Net) -> HiddenState:
        """Build what carries the hidden state of `net`; of one that is not recurrent, it carries nothing."""
        episodes = spec.memory.name in OF_EPISODES
        seq_len = None if episodes or not net.state_size else spec.net.seq_len
        return HiddenState(net.state_size, self.num_envs, seq_len, self.device)


class Algorithm(Protocol):
    """An algorithm: how it acts, when it learns, how it learns.

    Attributes:
        memory: what it remembers; None if nothing.
        modules: every net by name, trained or not: what a checkpoint saves.
        learners: every optimiser step by name.
        generators: every random stream by name.
        logged: names of the metrics that the training curve has a column for.
        hidden (only of those that work with recurrent nets): of `Setting.hidden_state`, for the net that acts.
    """

    memory: Memory | None
    modules: Mapping[str, nn.Module]
    learners: Mapping[str, Learner]
    generators: "Mapping[str, Stream]"
    logged: tuple[str, ...]

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:
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


def critic_spec(spec: AgentSpec) -> NetSpec:
    """Return the net spec of the critics: `critic_net` where there is one, else `net` with its `critic_X`."""
    return spec.critics[1].for_role("critic")


def critic_group(critics: nn.Module, spec: AgentSpec) -> ParameterGroup:
    """Return the critics' parameters, trained as their spec says, or as the policy's where `use_same_optim` is true."""
    return ParameterGroup(
        critics.parameters(), spec.net.for_role("actor") if spec.net.use_same_optim else critic_spec(spec)
    )


def flatten(obs: Tensor | History, *tensors: Tensor) -> list[Any]:
    """Merge time and environments: [T, N, ...] -> [T*N, ...]; beside a `History`, in the order of its rows."""
    if isinstance(obs, History):
        return [obs, *(in_chunks(tensor, len(obs.first)).flatten(0, 1) for tensor in tensors)]
    return [tensor.flatten(0, 1) for tensor in (obs, *tensors)]


def minibatches(data: Sequence[Any], size: int, generator: torch.Generator) -> Iterator[Sequence[Any]]:
    """Shuffle what `flatten` returned, and cut it into minibatches of `size` rows; of a `History`, whole sequences.

    `size` divides the number of rows.
    """
    obs, *tensors = data
    shuffle: dict[str, Any] = {"generator": generator, "device": generator.device}
    if not isinstance(obs, History):
        order = torch.randperm(len(obs), **shuffle)
        if obs.numel() > NUMBERS_AT_ONCE:  # too large to be there twice
            yield from ([_rows(tensor, rows) for tensor in data] for rows in order.split(size))
            return
        columns = (_rows(tensor, order) for tensor in data)
        yield from zip(*(column.view(-1, size, *column.shape[1:]).unbind() for column in columns), strict=True)
        return
    length, count = obs.first.shape
    for sequences in torch.randperm(count, **shuffle).split(size // length):
        yield [obs.take(sequences), *(x.unflatten(0, (length, count))[:, sequences].flatten(0, 1) for x in tensors)]


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """Return rows in a new order, laid out in memory as before: `index_select` alone would rearrange images."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)
    return x.index_select(0, order)


def mean_metrics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average the metrics of several gradient steps: one look at a GPU, however many there were."""
    names, first = list(metrics[0]), metrics[0]["loss"]
    if not isinstance(first, Tensor) or first.is_cpu:
        return {name: sum([float(row[name]) for row in metrics]) / len(metrics) for name in names}
    table = torch.stack([torch.stack([row[name].float() for name in names]) for row in metrics])
    return dict(zip(names, table.mean(0).tolist(), strict=True))


def merged_metrics(critic: Sequence[Mapping[str, Any]], actor: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average the gradient steps of critics and policy, of which the latter may have had none; `loss` is the sum."""
    of_critic, of_actor = mean_metrics(critic), mean_metrics(actor) if actor else {}
    return {**of_critic, **of_actor, "loss": of_critic["loss"] + of_actor.get("loss", 0.0)}


def require_discrete(space: gym.Space, algorithm: str) -> int:
    """Return the number of actions; an algorithm that needs a discrete space says so where the space is another."""
    if not isinstance(space, gym.spaces.Discrete):
        raise SpecError(
            f"agent.algorithm.name: {algorithm} needs discrete actions, but the environment has {space}; "
            "use another algorithm, e.g. PPO, or another environment"
        )
    return int(space.n)


def scheduled(spec: VarSpec | None) -> Schedule:
    """Return the schedule that `spec` describes; always 0 where there is none."""
    return make_schedule(**spec.model_dump()) if spec is not None else lambda _frame: 0.0


class TargetUpdate:
    """Moves a target net towards its source: target <- (1 - coef) target + coef source; buffers are copied.

    It walks through the nets once, as that takes longer than to move the parameters of a small net.
    """

    def __init__(self, target: nn.Module, source: nn.Module) -> None:
        self._target: list[Tensor] = list(target.parameters())
        self._source: list[Tensor] = list(source.parameters())
        self._buffers = list(zip(target.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def __call__(self, coef: float = 1.0) -> None:
        """Move by `coef`, in (0, 1]; 1 copies."""
        torch._foreach_lerp_(self._target, self._source, coef)
        for old, new in self._buffers:
            old.copy_(new)


@torch.no_grad()
def values_and_log_probs(net: ActorCritic, batch: RolloutBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate a rollout in one pass after it is collected.

    Returns:
        value V(s_t), next value V(s_{t+1}) of the true successors, and log-probability of the actions, each [T, N].
    """
    found, log_probs = [], []
    for obs, action in parts(batch.obs, batch.action):
        policy, value = net.policy_value(obs)
        found.append(value)
        log_probs.append(policy.log_prob(action))
    value = as_rollout(torch.cat(found), batch)
    return value, _next_value(net, batch, value), as_rollout(torch.cat(log_probs), batch)


@torch.no_grad()
def values(net: ActorCritic, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """Return the value V(s_t) and the next value V(s_{t+1}) of the true successors of a rollout, each [T, N]."""
    value = as_rollout(torch.cat([net.value(obs) for (obs,) in parts(batch.obs)]), batch)
    return value, _next_value(net, batch, value)


def parts(obs: Tensor | History, *tensors: Tensor) -> Iterator[Sequence[Any]]:
    """Flatten, and cut into parts that go through a net at once; a `History`, which is of no images, stays whole."""
    data = flatten(obs, *tensors)
    if isinstance(obs, History):
        return iter([data])
    rows = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // obs[0, 0].numel()))
    return zip(*(x.split(rows) for x in data), strict=True)


def as_rollout(x: Tensor, batch: RolloutBatch) -> Tensor:
    """Undo `flatten` for one number a row: [T*N] -> [T, N]."""
    if isinstance(batch.obs, History):
        return from_chunks(x.unflatten(0, batch.obs.first.shape), batch.done.shape[1])
    return x.view_as(batch.reward)


def what_follows(batch: RolloutBatch) -> Any:
    """Return the last_obs and the final_obs of a rollout together: [N + K, *obs], or a `History` of as many rows."""
    last, final = batch.last_obs, batch.final_obs
    if isinstance(last, History) and isinstance(final, History):
        return last.beside(final)
    return torch.cat([last, final])


def _next_value(net: ActorCritic, batch: RolloutBatch, value: Tensor) -> Tensor:
    after = net.value(what_follows(batch))
    num_envs = value.shape[1]
    return successor_value(value, after[:num_envs], batch.ended, after[num_envs:])
