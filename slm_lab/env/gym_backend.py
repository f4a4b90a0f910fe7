"""Environments of gymnasium, and those of users, stepped in a plain loop."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from slm_lab.env.spaces import lab_action_space, lab_obs_space, rows
from slm_lab.env.vec_env import EpisodeStats, State, Step, VecEnv
from slm_lab.lib.rng import derive_seed
from slm_lab.spec.errors import SpecError

MAX_STEPS = 2**62
"""A time limit that is none."""
MAX_REPLAY = 100_000
"""Vector steps that are kept for a replay: an episode that has lasted longer cannot be restored."""


class GymVecEnv(VecEnv):
    """N `gymnasium.Env` objects, stepped one after another into the rows of shared arrays.

    For environments that take microseconds per step a loop beats processes, and this one beats gymnasium's by leaving
    out infos, copies and a wrapper per environment for the time limit.

    Args:
        envs: N like ones; only the first may draw.
        seed: each environment gets a stream of its own, derived from it.
        name: for messages.
        time_limit: steps after which an episode is truncated; None for no limit but the environment's own.
    """

    frame_stack = 1

    def __init__(self, envs: list[gym.Env], seed: int, name: str, time_limit: int | None = None) -> None:
        self.envs, self.name = envs, name
        self.num_envs = num_envs = len(envs)
        self.obs_space, self._to_lab = lab_obs_space(self.envs[0].observation_space, name)
        self.action_space, self._to_env = lab_action_space(self.envs[0].action_space, name)
        self.stats = EpisodeStats(num_envs)
        self._seed = seed
        self._no_action = np.zeros((num_envs, *(self.action_space.shape or ())), self.action_space.dtype)
        self._obs_shape, self._obs_dtype = (num_envs, *self.obs_space.shape), self.obs_space.dtype
        self._steps = [env.step for env in self.envs]
        self._time_limit = time_limit or MAX_STEPS
        self._countdown = self._time_limit  # vector steps until the oldest episode reaches the limit
        self._origins: list[State] = []  # per environment: the random state that its episode began with
        self._actions: deque[np.ndarray] = deque(maxlen=MAX_REPLAY)  # since the oldest episode began

    def reset(self) -> np.ndarray:
        """Start an episode in every environment; the first call seeds them."""
        if self._origins:
            self.obs = self._start([None] * self.num_envs)
        else:
            self.obs = self._start([derive_seed(self._seed, index) for index in range(self.num_envs)])
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """Act in every environment."""
        obs = np.empty(self._obs_shape, self._obs_dtype)
        reward = np.empty(self.num_envs)
        terminated = np.empty(self.num_envs, bool)
        truncated = np.empty(self.num_envs, bool)
        action = self._to_env(action)
        to_lab, ended = self._to_lab, []
        for i, (step, act) in enumerate(zip(self._steps, rows(self.action_space, action), strict=True)):
            row, reward[i], over, cut, _ = step(act)
            obs[i] = row if to_lab is None else to_lab(row)
            terminated[i], truncated[i] = over, cut
            if over or cut:
                ended.append(i)
        self._actions.append(action)
        self.stats.add(reward)
        self._countdown -= 1
        if self._countdown == 0:
            truncated |= self.stats.running_length >= self._time_limit
            ended = (terminated | truncated).nonzero()[0]
        final_obs = obs
        if len(ended):
            final_obs = obs.copy()
            self._restart(ended, obs)
        self.obs = obs
        return Step(obs, reward.astype(np.float32), terminated, truncated, final_obs)

    def state_dict(self) -> State:
        """Return the statistics and, per environment, its random state at the last reset and the actions since."""
        lengths = self.stats.running_length
        actions = np.array([self._to_env(self._no_action), *self._actions])[1:]
        envs = {
            str(i): {"origin": origin, "actions": actions[len(actions) - lengths[i] :, i]}
            for i, origin in enumerate(self._origins)
            if lengths[i] <= len(actions)
        }
        return {"stats": self.stats.state_dict(), "envs": envs, "obs": self.obs}

    def load_state_dict(self, state: State) -> bool:
        """Replay every environment's episode; False if one of them did not take the same course again."""
        self.stats.load_state_dict(state["stats"])
        if self._replay(state):
            return True
        self.stats.forget()
        # not the streams from the beginning: their first episodes have been lived
        self.obs = self._start([derive_seed(self._seed, "again", i, self.stats.episodes) for i in range(self.num_envs)])
        return False

    def render(self) -> np.ndarray | None:
        """Return the picture of the first environment; None if it draws to a window.

        Raises:
            SpecError: it cannot be drawn on this machine.
        """
        if self.envs[0].render_mode is None:
            return None
        try:
            frame = self.envs[0].render()
        except Exception as error:  # of the graphics libraries, each has its own
            raise SpecError(
                f"render: {self.name} cannot be drawn here ({type(error).__name__}: {error}); "
                "for MuJoCo, try MUJOCO_GL=egl or MUJOCO_GL=osmesa"
            ) from error
        return frame if isinstance(frame, np.ndarray) else None

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _start(self, seeds: Sequence[int | None]) -> np.ndarray:
        obs = np.empty(self._obs_shape, self._obs_dtype)
        self._origins = [{} for _ in self.envs]
        for i, seed in enumerate(seeds):
            self._begin(i, obs, seed)
        self.stats.forget()
        self._actions.clear()
        self._countdown = self._time_limit
        return obs

    def _restart(self, ended: Sequence[int], obs: np.ndarray) -> None:
        """Start the next episode of the environments `ended`, in place in `obs`."""
        self.stats.finish(ended)
        for i in ended:
            self._begin(i, obs)
        longest = int(self.stats.running_length.max())
        while len(self._actions) > longest:
            self._actions.popleft()
        self._countdown = self._time_limit - longest

    def _begin(self, i: int, obs: np.ndarray, seed: int | None = None) -> None:
        env = self.envs[i]
        self._origins[i] = {"seed": seed} if seed is not None else {"rng": env.unwrapped.np_random.bit_generator.state}
        self._write(obs, i, env.reset(seed=seed)[0])

    def _write(self, obs: np.ndarray, i: int, row: Any) -> None:
        obs[i] = row if self._to_lab is None else self._to_lab(row)

    def _replay(self, state: State) -> bool:
        """Bring the environments back to `state`, whose statistics are loaded already; tell whether they got there."""
        obs = np.empty(self._obs_shape, self._obs_dtype)
        lengths = self.stats.running_length
        self._origins = [{} for _ in self.envs]
        for i in range(self.num_envs):
            if str(i) not in state.get("envs", {}) or not self._replay_one(i, state["envs"][str(i)], obs):
                return False
        if not np.array_equal(obs, state["obs"]):
            return False
        self._actions = _merge([state["envs"][str(i)]["actions"] for i in range(self.num_envs)])
        self.obs = obs
        self._countdown = self._time_limit - int(lengths.max())
        return True

    def _replay_one(self, i: int, episode: State, obs: np.ndarray) -> bool:
        env, origin = self.envs[i], episode["origin"]
        if "rng" in origin:
            env.unwrapped.np_random.bit_generator.state = origin["rng"]
        self._origins[i] = origin
        row, total = env.reset(seed=origin.get("seed"))[0], 0.0
        for action in rows(self.action_space, episode["actions"]):
            row, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            if terminated or truncated:  # the course it took before went on from here
                return False
        self._write(obs, i, row)
        return total == self.stats.running_return[i]


def _merge(episodes: list[np.ndarray]) -> deque[np.ndarray]:
    """Join the actions of unfinished episodes to [N, *action] per step, their ends aligned (0 before a beginning)."""
    longest = max(len(actions) for actions in episodes)
    like = episodes[0]
    merged = np.zeros((longest, len(episodes), *like.shape[1:]), like.dtype)
    for i, actions in enumerate(episodes):
        merged[longest - len(actions) :, i] = actions
    return deque(merged, maxlen=MAX_REPLAY)
