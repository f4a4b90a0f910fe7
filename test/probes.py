"""Environments so small that the right values and policies are known: what does not learn these learns nothing."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

ACTION_SPACES = {
    "discrete": Discrete(2),
    "box": Box(-1.0, 1.0, (2,), np.float32),
    "multi_discrete": MultiDiscrete([2, 3]),
    "multi_binary": MultiBinary(2),
}
RIGHT_ACTIONS = {  # where the observation is -1, and where it is 1
    "discrete": (0, 1),
    "box": ([0.5, 0.0], [-0.5, 0.0]),
    "multi_discrete": ([0, 2], [1, 0]),
    "multi_binary": ([0, 1], [1, 0]),
}


class Probe(gym.Env):
    """One-number observations; `action` is the kind of its action space."""

    def __init__(self, action: str = "discrete") -> None:
        self.observation_space = Box(-10.0, 10.0, (1,), np.float32)
        self.action_space, self.right_actions = ACTION_SPACES[action], np.array(RIGHT_ACTIONS[action])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.begin(), {}

    def begin(self):
        self.obs = np.zeros(1, np.float32)
        return self.obs

    def coin(self):
        """-1 or 1."""
        self.obs = np.array([2 * self.np_random.integers(2) - 1], np.float32)
        return self.obs

    def match(self, action):
        """1 for the right action, less for others."""
        right = self.right_actions[int(self.obs[0] > 0)]
        if isinstance(self.action_space, Box):
            return 1.0 - float(np.abs(action - right).sum())
        return float(np.mean(action == right))


class ConstantReward(Probe):
    """One step, reward 1: V = 1."""

    def step(self, action):
        return self.obs, 1.0, True, False, {}


class ObservedReward(Probe):
    """One step, the reward is the observation: V(-1) = -1, V(1) = 1."""

    def begin(self):
        return self.coin()

    def step(self, action):
        return self.obs, float(self.obs[0]), True, False, {}


class DelayedReward(Probe):
    """Two steps, 1 after the second: V(0) = gamma, V(1) = 1."""

    def step(self, action):
        self.t += 1
        return np.ones(1, np.float32), float(self.t == 2), self.t == 2, False, {}


class ActionReward(Probe):
    """One step, -1 for action 0 and 1 for action 1: Q = -1, 1."""

    def step(self, action):
        return self.obs, 2.0 * action - 1.0, True, False, {}


class ContextReward(Probe):
    """One step, the right action depends on the observation: Q = 1 for it, else less (0 for a discrete one)."""

    def begin(self):
        return self.coin()

    def step(self, action):
        return self.obs, self.match(action), True, False, {}


class Recall(Probe):
    """What is right is seen at the first step only, and is asked for at the last: without a memory, 0.5 or less."""

    def __init__(self, action: str = "discrete", steps: int = 3) -> None:
        super().__init__(action)
        self.steps = steps

    def begin(self):
        self.cue = self.coin()
        return self.cue

    def step(self, action):
        self.t += 1
        self.obs = self.cue
        asked = self.t == self.steps
        return np.zeros(1, np.float32), self.match(action) if asked else 0.0, asked, False, {}


class Endless(Probe):
    """Reward 1 without end, but cut every three steps: V = 1 / (1 - gamma), if a cut is not taken for an end."""

    def step(self, action):
        self.t += 1
        return self.obs, 1.0, False, self.t == 3, {}


class Wander(Probe):
    """Episodes of random length, which end by termination or by truncation; rewards depend on everything."""

    def begin(self):
        return self.coin()

    def step(self, action):
        reward = self.match(action) + 0.1 * self.np_random.normal()
        self.obs = self.obs + self.np_random.normal(size=1).astype(np.float32)
        fate = self.np_random.random()
        return self.obs, reward, fate < 0.1, fate > 0.9, {}
