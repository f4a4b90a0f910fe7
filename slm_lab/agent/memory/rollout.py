"""On-policy memories: what the present policy did, used once and forgotten."""

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from slm_lab.agent.memory.columns import Plan, action_dtype, allocate, channels_last, check_state, obs_dtype, shape_of

if TYPE_CHECKING:
    from slm_lab.env.vec_env import Step


class RolloutBatch(NamedTuple):
    """T steps of N environments, on the memory's device. On the CPU the next `add` may write over it.

    For recurrent nets a `History` takes the place of obs, last_obs and final_obs.
    """

    obs: torch.Tensor
    """[T, N, *obs] what was acted on; for convolutions on a CPU, the channels of a pixel lie side by side in memory."""
    action: torch.Tensor
    """[T, N, *action] int64, or float32 where actions are continuous."""
    reward: torch.Tensor
    """[T, N] float32."""
    terminated: torch.Tensor
    """[T, N] bool; cuts the value."""
    done: torch.Tensor
    """[T, N] bool, terminated or truncated; cuts the trace."""
    last_obs: torch.Tensor
    """[N, *obs] what is to be acted on after the last row."""
    ended: torch.Tensor
    """[K] int64, flat rows t * N + n that ended an episode, ascending."""
    final_obs: torch.Tensor
    """[K, *obs] the true last observations of those episodes."""


class _OnPolicyMemory:
    """Rows of N environments each, time first; `_t` of them are filled."""

    def __init__(
        self,
        obs_space: gym.Space,
        action_space: gym.Space,
        num_envs: int,
        rows: int,
        device: torch.device | str,
        convolved: bool,
    ) -> None:
        self.device = torch.device(device)
        plan = self.plan(obs_space, action_space, num_envs, rows)
        self._column = allocate(plan, pinned=self.device.type == "cuda")
        # a CPU's convolutions are faster so, and a copy of them all in another layout would take as much memory again
        self._images = convolved and self.device.type == "cpu"
        if self._images:
            self._column["obs"] = channels_last(self._column["obs"])
        self._t = 0
        self._final_obs: list[np.ndarray] = []  # of the episodes that ended, in the order in which they did

    @staticmethod
    def plan(obs_space: gym.Space, action_space: gym.Space, num_envs: int, rows: int) -> Plan:
        """Return the arrays that `rows` rows take."""
        return {
            "obs": ((rows, num_envs, *shape_of(obs_space)), obs_dtype(obs_space)),
            "action": ((rows, num_envs, *shape_of(action_space)), action_dtype(action_space)),
            "reward": ((rows, num_envs), np.dtype(np.float32)),
            "terminated": ((rows, num_envs), np.dtype(bool)),
            "done": ((rows, num_envs), np.dtype(bool)),
        }

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(column.nbytes for column in self._column.values())

    def _write(self, obs: np.ndarray, action: np.ndarray, step: "Step") -> np.ndarray:
        """Fill the next row and return the environments whose episode ended."""
        t, column = self._t, self._column
        if self._images:  # numpy takes three times as long over all channels at once
            for channel in range(obs.shape[1]):
                column["obs"][t, :, channel] = obs[:, channel]
        else:
            column["obs"][t] = obs
        column["action"][t] = action
        column["reward"][t] = step.reward
        column["terminated"][t] = step.terminated
        ended = np.logical_or(step.terminated, step.truncated, out=column["done"][t]).nonzero()[0]
        self._t += 1
        return ended

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        # a blocking copy: the rows are written again while a copy in the background might still read them
        return torch.from_numpy(array).to(self.device)

    def _stack_final_obs(self) -> np.ndarray:
        obs = self._column["obs"]
        return np.stack(self._final_obs) if self._final_obs else np.empty((0, *obs.shape[2:]), obs.dtype)

    def _filled(self) -> dict[str, Any]:
        rows = {name: torch.from_numpy(column[: self._t]) for name, column in self._column.items()}
        return rows | {"final_obs": torch.from_numpy(self._stack_final_obs())}

    def _refill(self, state: dict[str, Any]) -> None:
        self._t = len(state["obs"])
        for name, column in self._column.items():
            column[: self._t] = state[name].numpy()
        self._final_obs = list(state["final_obs"].numpy().copy())

    def _row_shape(self) -> list[int]:
        return list(self._column["obs"].shape[1:])


class OnPolicyBatchReplay(_OnPolicyMemory):
    """A rollout of a fixed number of vector steps.

    Args:
        obs_space: space of one environment's observations, as the agent sees them.
        action_space: space of one environment's actions.
        num_envs: N.
        horizon: T, vector steps per rollout.
        device: where rollouts go.
        convolved: whether observations are images that go through convolutions first.
    """

    def __init__(
        self,
        *,
        obs_space: gym.Space,
        action_space: gym.Space,
        num_envs: int,
        horizon: int,
        device: torch.device | str = "cpu",
        convolved: bool = False,
    ) -> None:
        super().__init__(obs_space, action_space, num_envs, horizon, device, convolved)
        self.num_envs, self.horizon = num_envs, horizon
        self._last_obs = np.empty(0)
        self._ended: list[int] = []

    @property
    def ready(self) -> bool:
        """Whether the rollout is complete."""
        return self._t == self.horizon

    def add(self, obs: np.ndarray, action: np.ndarray, step: "Step") -> None:
        """Store one transition of every environment, by copy.

        Args:
            obs: [N, *obs] what was acted on.
            action: [N, *action] what was done.
            step: what followed.
        """
        first = self._t * self.num_envs
        for env in self._write(obs, action, step):
            self._ended.append(first + int(env))
            self._final_obs.append(np.array(step.final_obs[env], self._column["obs"].dtype))
        if self.ready:
            self._last_obs = np.array(step.obs, self._column["obs"].dtype)

    def interrupt(self) -> None:
        """Drop the rows so far: their episodes were left where they stood, and nobody saw what followed."""
        self._t, self._ended, self._final_obs = 0, [], []

    def sample(self) -> RolloutBatch:
        """Hand out the rollout and begin the next one.

        Raises:
            ValueError: it is not complete.
        """
        if not self.ready:
            raise ValueError(f"the rollout has {self._t} of its {self.horizon} steps")
        batch = RolloutBatch(
            **{name: self._to_device(column) for name, column in self._column.items()},
            last_obs=self._to_device(self._last_obs),
            ended=self._to_device(np.array(self._ended, np.int64)),
            final_obs=self._to_device(self._stack_final_obs()),
        )
        self._t, self._ended, self._final_obs = 0, [], []
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly. The tensors are views: use them before the next `add`."""
        state = self._filled() | {"row": self._row_shape(), "horizon": self.horizon, "ended": list(self._ended)}
        return state | {"last_obs": torch.from_numpy(self._last_obs)} if self.ready else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; ValueError where it comes from a memory of other sizes."""
        check_state("rollout", {"row": self._row_shape(), "horizon": self.horizon}, state)
        self._refill(state)
        self._ended = list(state["ended"])
        if self.ready:
            self._last_obs = state["last_obs"].numpy().copy()


class OnPolicyReplay(_OnPolicyMemory):
    """Whole episodes: a number of finished ones is handed out, those under way go on.

    The batch has N = 1: the finished episodes of all environments one after another, in the order of finishing. Its
    `last_obs` is that of the last of them.

    Args:
        obs_space: space of one environment's observations, as the agent sees them.
        action_space: space of one environment's actions.
        num_envs: environments.
        episodes: finished episodes per batch, at least (several may finish in the same vector step).
        device: where batches go.
        convolved: whether observations are images that go through convolutions first.
    """

    FIRST_ROWS = 256  # vector steps; doubled when they are full, as nobody knows how long an episode will be

    def __init__(
        self,
        *,
        obs_space: gym.Space,
        action_space: gym.Space,
        num_envs: int,
        episodes: int,
        device: torch.device | str = "cpu",
        convolved: bool = False,
    ) -> None:
        super().__init__(obs_space, action_space, num_envs, self.FIRST_ROWS, device, convolved)
        self.episodes = episodes
        self._start = [0] * num_envs  # row at which the episode under way began
        self._spans: list[tuple[int, int, int]] = []  # (env, first row, row after the last) of finished episodes

    @property
    def ready(self) -> bool:
        """Whether enough episodes are finished."""
        return len(self._spans) >= self.episodes

    def add(self, obs: np.ndarray, action: np.ndarray, step: "Step") -> None:
        """Store one transition of every environment, by copy.

        Args:
            obs: [N, *obs] what was acted on.
            action: [N, *action] what was done.
            step: what followed.
        """
        if self._t == len(self._column["obs"]):
            self._grow(2 * self._t)
        for env in self._write(obs, action, step):
            self._spans.append((int(env), self._start[env], self._t))
            self._start[env] = self._t
            self._final_obs.append(np.array(step.final_obs[env], self._column["obs"].dtype))

    def interrupt(self) -> None:
        """Drop the episodes under way: they were left where they stood. Finished ones stay."""
        self._start = [self._t] * len(self._start)

    def sample(self) -> RolloutBatch:
        """Hand out the finished episodes and forget them.

        Raises:
            ValueError: there are too few.
        """
        if not self.ready:
            raise ValueError(f"{len(self._spans)} of {self.episodes} episodes are finished")
        self._select()
        final_obs = self._to_device(self._stack_final_obs())
        lengths = [stop - start for _, start, stop in self._spans]
        batch = RolloutBatch(
            **{name: self._to_device(self._take_spans(column)) for name, column in self._column.items()},
            last_obs=final_obs[-1:],
            ended=self._to_device(np.cumsum(lengths, dtype=np.int64) - 1),
            final_obs=final_obs,
        )
        self._forget()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly. The tensors are views: use them before the next `add`."""
        spans = [list(span) for span in self._spans]
        return self._filled() | {"row": self._row_shape(), "start": list(self._start), "spans": spans}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; ValueError where it comes from a memory of other sizes."""
        check_state("rollout", {"row": self._row_shape()}, state)
        self._t = 0
        if len(state["obs"]) > len(self._column["obs"]):
            self._grow(len(state["obs"]))
        self._refill(state)
        self._start = list(state["start"])
        self._spans = [(env, start, stop) for env, start, stop in state["spans"]]

    def _select(self) -> None:
        """Drop finished episodes that are not to be handed out: none."""

    def _take_spans(self, column: np.ndarray) -> np.ndarray:
        """Return [T, 1, …]: the finished episodes one after another."""
        return np.concatenate([column[start:stop, env] for env, start, stop in self._spans])[:, None]

    def _forget(self) -> None:
        """Drop the finished episodes; the rows of those under way move to the front."""
        first = min(self._start)
        for column in self._column.values():
            column[: self._t - first] = column[first : self._t]
        self._t -= first
        self._start = [start - first for start in self._start]
        self._spans, self._final_obs = [], []

    def _grow(self, rows: int) -> None:
        for name, column in self._column.items():
            grown = np.zeros((rows, *column.shape[1:]), column.dtype)
            self._column[name] = channels_last(grown) if self._images and name == "obs" else grown
            self._column[name][: self._t] = column[: self._t]


class OnPolicyCrossEntropy(OnPolicyReplay):
    """Whole episodes, of which only the best are handed out: the elite of the cross-entropy method.

    Rubinstein 1999, "The Cross-Entropy Method for Combinatorial and Continuous Optimization"; Mannor et al. 2003, "The
    Cross Entropy Method for Fast Policy Search".

    An episode counts as one of the best if its return, the plain sum of its rewards, is at least the
    `100 cross_entropy`-th percentile (interpolated) of those in the batch. So the best one always is.

    Args:
        cross_entropy: 0 hands out every episode, 1 the best alone.
        replay: the arguments of `OnPolicyReplay`.
    """

    def __init__(self, *, cross_entropy: float, **replay: Any) -> None:
        super().__init__(**replay)
        self.cross_entropy = cross_entropy

    def _select(self) -> None:
        reward = self._column["reward"]
        returns = np.array([reward[start:stop, env].sum(dtype=np.float64) for env, start, stop in self._spans])
        best = (returns >= np.quantile(returns, self.cross_entropy)).nonzero()[0]
        self._spans = [self._spans[episode] for episode in best]
        self._final_obs = [self._final_obs[episode] for episode in best]
