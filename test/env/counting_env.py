"""Environments of which every transition is known beforehand."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

GO_ON, DIE, CUT, BOTH = range(4)


class Counter(gym.Env):
    """Shows [episode, t]; the reward is 10 * episode + t; the action ends the episode, or does not."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, start: int = 0, render_mode: str | None = None) -> None:
        self.observation_space = Box(0, 1e6, (2,), np.float64)
        self.action_space = Discrete(4, start=start)
        self.start, self.episode, self.t = start, -1, 0
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0.0]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        action -= self.start
        self.t += 1
        return (
            np.array([self.episode, self.t], np.float64),
            10.0 * self.episode + self.t,
            action in (DIE, BOTH),
            action in (CUT, BOTH),
            {},
        )

    def render(self):
        if self.t == 0:
            raise RuntimeError("no graphics card")
        return np.full((2, 3, 3), self.t, np.uint8)


class Walk(gym.Env):
    """A random walk, from a random place; the action is added. Ends beyond ±4."""

    def __init__(self, low: float = -2.0, high: float = 6.0) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = Box(low, high, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=1)
        return self.x.copy(), {}

    def step(self, action):
        self.x = self.x + self.np_random.normal(size=1) + action
        return self.x.copy(), float(action[0]), bool(abs(self.x[0]) > 4), False, {}


class Unseeded(Walk):
    """Breaks the rule: its randomness is not what `reset(seed=...)` seeds."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.random.default_rng().normal(size=1)
        return self.x.copy(), {}


class Lottery(Counter):
    """Breaks the same rule, and shows it in the rewards alone."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(np.random.default_rng().random()), *rest


class Picture(gym.Env):
    """Shows 6 x 9 pixels in three colours, the channels last."""

    def __init__(self) -> None:
        self.observation_space = Box(0, 255, (6, 9, 3), np.uint8)
        self.action_space = MultiDiscrete([2, 3])
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3), {}

    def step(self, action):
        self.actions.append(action.tolist())
        return np.full((6, 9, 3), 7, np.uint8), 0.0, False, False, {}


class Parts(gym.Env):
    """Shows a Dict, which an agent cannot take as it is."""

    def __init__(self) -> None:
        self.observation_space = Dict(place=Discrete(3), speed=Box(-1, 1, (2,), np.float32))
        self.action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"place": 1, "speed": np.array([0.5, -0.5], np.float32)}, {}

    def step(self, action):
        return {"place": 2, "speed": np.zeros(2, np.float32)}, 0.0, False, False, {}


def make_counter(start: int = 0) -> gym.Env:
    """A function makes an environment as well as a class does."""
    return Counter(start)


class Doubled(gym.RewardWrapper):
    """Rewards times a factor."""

    def __init__(self, env: gym.Env, factor: float = 2.0) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


NOT_CALLABLE = 3
gym.register(id="test/Counter-v3", entry_point=Counter, max_episode_steps=3)


class Unmade(gym.Env):
    """Cannot be made."""

    def __init__(self, **_keys: object) -> None:
        raise ValueError("no room")
