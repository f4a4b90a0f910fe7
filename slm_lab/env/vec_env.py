"""The one contract between environments and everything else: `VecEnv` and its `Step`."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

State = dict[str, Any]
"""Nested dict; its leaves are None, bool, int, float, str, lists of those, and numpy arrays."""

WINDOW = 100
"""Finished episodes that `total_reward` is the mean of."""
MAX_PENDING = 100_000
"""Finished episodes kept for `drain`, so that one who never drains does not fill the memory."""


class Step(NamedTuple):
    """What one step of all N environments brought. Its arrays are never written to again.

    Attributes:
        obs: [N, *obs] what to act on next; where an episode ended, the first observation of the next one.
        reward: [N] float32, as the algorithm sees it.
        terminated: [N] bool; nothing can follow, so the value is cut.
        truncated: [N] bool; the episode was stopped though it could go on. `terminated | truncated` cuts the trace.
        final_obs: [N, *obs] what truly followed the last observation; the same object as `obs` where no episode ended.
    """

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray


class Episode(NamedTuple):
    """A finished episode: in which environment, its return as the game scores it, its length in steps."""

    env: int
    total_reward: float
    length: int


class EpisodeStats:
    """Returns and lengths of episodes as the environment itself scores them, whatever the algorithm gets to see.

    Attributes:
        window: of how many finished episodes `total_reward` is the mean, at most 100; workers share out the hundred.
    """

    def __init__(self, num_envs: int) -> None:
        self.running_return = np.zeros(num_envs)  # float64: the sum is exact to the last bit of a plain loop
        self.running_length = np.zeros(num_envs, np.int64)
        self.episodes, self.window = 0, WINDOW
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._pending: deque[Episode] = deque(maxlen=MAX_PENDING)

    @property
    def total_reward(self) -> float:
        """Mean return of the last finished episodes over all environments; nan before the first."""
        returns = list(self._window)[-self.window :]
        return sum(returns) / len(returns) if returns else float("nan")

    def add(self, reward: np.ndarray) -> None:
        """Count one step of every environment; `reward`: [N]."""
        self.running_return += reward
        self.running_length += 1

    def finish(self, envs: Sequence[int]) -> None:
        """Close the episodes of `envs`."""
        for env in envs:
            episode = Episode(int(env), float(self.running_return[env]), int(self.running_length[env]))
            self._window.append(episode.total_reward)
            self._pending.append(episode)
            self.running_return[env] = 0.0
            self.running_length[env] = 0
        self.episodes += len(envs)

    def forget(self) -> None:
        """Drop the unfinished episodes."""
        self.running_return[:] = 0.0
        self.running_length[:] = 0

    def drain(self) -> list[Episode]:
        """Return the episodes that finished since the last call, in the order of finishing."""
        episodes = list(self._pending)
        self._pending.clear()
        return episodes

    def state_dict(self) -> State:
        """Return everything, the unfinished episodes and the undrained ones as well."""
        return {
            "running_return": self.running_return.copy(),
            "running_length": self.running_length.copy(),
            "episodes": self.episodes,
            "window": list(self._window),
            "pending_env": [episode.env for episode in self._pending],
            "pending_return": [episode.total_reward for episode in self._pending],
            "pending_length": [episode.length for episode in self._pending],
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        self.running_return[:] = state["running_return"]
        self.running_length[:] = state["running_length"]
        self.episodes = state["episodes"]
        self._window = deque(state["window"], maxlen=WINDOW)
        pending = zip(state["pending_env"], state["pending_return"], state["pending_length"], strict=True)
        self._pending = deque((Episode(*episode) for episode in pending), maxlen=MAX_PENDING)


class VecEnv(ABC):
    """N copies of one environment, stepped together, each starting its next episode in the step that ends the last.

    Attributes:
        num_envs: N.
        obs_space: space of one environment's observations: float32, or uint8 images with the channels first.
        action_space: space of one environment's actions; bounded continuous ones are [-1, 1] here.
        frame_stack: k where the first axis of an observation holds the k latest frames, oldest first; else 1.
        obs: [N, *obs] the current observation, as `reset` or the last `step` returned it.
        stats: raw episode statistics.
    """

    num_envs: int
    obs_space: gym.spaces.Box
    action_space: gym.Space
    frame_stack: int
    obs: np.ndarray
    stats: EpisodeStats

    @abstractmethod
    def reset(self) -> np.ndarray:
        """Start an episode in every environment, dropping the unfinished ones; return obs [N, *obs].

        The first call seeds the environments; later ones go on with their random streams.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """Act in every environment; `action`: [N, *action] as in `action_space`."""

    @abstractmethod
    def state_dict(self) -> State:
        """Return all that `load_state_dict` needs to go on as if nothing had happened."""

    @abstractmethod
    def load_state_dict(self, state: State) -> bool:
        """Go on from `state`.

        Returns:
            True if every environment is where it was, to the bit. False if the environments could not be put back:
            then fresh episodes have begun (their first observation is `obs`); statistics and normalisers are
            restored all the same.
        """

    def normalizer_state(self) -> State:
        """Return copies of the statistics of the normalisers; empty where there is none."""
        return {}

    def load_normalizers(self, state: State) -> None:  # noqa: B027 (most have none)
        """Take over the statistics of another environment's `normalizer_state`."""

    def render(self) -> np.ndarray | None:
        """Return the picture [height, width, 3] uint8 of the first environment; None if it draws to a window or not."""
        return None

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Free what the environments hold."""
