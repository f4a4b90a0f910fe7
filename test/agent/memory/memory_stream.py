"""A made-up environment in which no two frames are alike, so that whatever a memory hands out can be looked up."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np

from slm_lab.env.vec_env import Step

GO_ON, TERMINATED, TRUNCATED, LIFE_LOST = range(4)


class Happened(NamedTuple):
    """One transition, and where its `obs` stands among all rows that its environment has ever filled."""

    env: int
    action: int
    reward: float
    terminated: bool
    done: bool
    next_obs: bytes
    row: int


class Stream:
    """N environments with random ends of episodes; `happened` is the log of all transitions by observation.

    As a real environment may, it reuses the arrays of its steps.
    """

    def __init__(self, num_envs=1, frame_stack=1, dtype=np.float32, end_rate=0.3, pad_zeros=False, seed=0):
        self.num_envs, self.k, self.pad_zeros, self.end_rate = num_envs, frame_stack, pad_zeros, end_rate
        self.frame_shape = (1, 2, 2) if frame_stack > 1 else (4,)
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.obs_space = gym.spaces.Box(0, 255, (frame_stack * self.frame_shape[0], *self.frame_shape[1:]), dtype)
        self.action_space = gym.spaces.Discrete(1 << 20)
        self.frames_shown = 0
        self.rows = np.full(num_envs, -1)
        self.happened: dict[bytes, Happened] = {}
        self.order: list[list[bytes]] = [[] for _ in range(num_envs)]
        self.windows = [self._reset(env) for env in range(num_envs)]
        self.obs, self.final = (np.empty((num_envs, *self.obs_space.shape), dtype) for _ in range(2))
        self.obs[:] = [np.concatenate(window) for window in self.windows]

    def step(self) -> tuple[np.ndarray, np.ndarray, Step]:
        """Return (obs, action, step) of one random vector step; they hold until the next call."""
        obs = self.obs.copy()
        action = self.rng.integers(1 << 20, size=self.num_envs)
        reward = self.rng.normal(size=self.num_envs).astype(np.float32)
        ends = self.rng.random(self.num_envs) < self.end_rate
        fate = np.where(ends, self.rng.integers(1, 4, size=self.num_envs), GO_ON)
        terminated, truncated = (fate == TERMINATED) | (fate == LIFE_LOST), fate == TRUNCATED
        for env in range(self.num_envs):
            self.windows[env] = [*self.windows[env][1:], self._frame()]
            self.final[env] = np.concatenate(self.windows[env])
            self._log(env, obs[env], action[env], reward[env], terminated[env], ends[env])
            if fate[env] in (TERMINATED, TRUNCATED):
                self.windows[env] = self._reset(env)
            self.obs[env] = np.concatenate(self.windows[env])
        reset = ((fate == TERMINATED) | truncated).any()
        return obs, action, Step(self.obs, reward, terminated, truncated, self.final if reset else self.obs)

    def _log(self, env, obs, action, reward, terminated, done):
        self.order[env].append(obs.tobytes())
        self.happened[obs.tobytes()] = Happened(
            env,
            int(action),
            float(reward),
            bool(terminated),
            bool(done),
            self.final[env].tobytes(),
            int(self.rows[env]),
        )
        self.rows[env] += 1

    def _reset(self, env) -> list[np.ndarray]:
        first = self._frame()
        self.rows[env] += self.k
        return [*[np.zeros_like(first) if self.pad_zeros else first] * (self.k - 1), first]

    def _frame(self) -> np.ndarray:
        self.frames_shown += 1
        digits = [self.frames_shown // 256**place % 256 for place in range(4)]
        return np.array(digits, self.dtype).reshape(self.frame_shape)
