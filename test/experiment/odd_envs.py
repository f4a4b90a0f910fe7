"""Environments that make trouble, or that leave traces."""

import os
import signal
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Walk(gym.Env):
    """A random walk that the action pushes. The reward is -|x|; it ends beyond ±3, or never."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, ends: bool = True, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space = Box(-np.inf, np.inf, (2,), np.float32), Discrete(2)
        self.ends, self.render_mode = ends, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.normal(size=2)
        return self.obs(), {}

    def step(self, action):
        self.v += 0.1 * (2 * int(action) - 1) + 0.1 * self.np_random.normal()
        self.x += 0.3 * self.v
        return self.obs(), -abs(self.x), bool(self.ends and abs(self.x) > 3), False, {}

    def render(self):
        return None

    def obs(self):
        return np.array([self.x, self.v], np.float32)


class Unseeded(Walk):
    """Its randomness is not what `reset(seed=...)` seeds, so no episode of it can be lived again."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = np.random.default_rng().normal(size=2)
        return self.obs(), {}


class NoNumber(Walk):
    """Gives, from its tenth step on, no number as `what`: "reward" or "obs"."""

    def __init__(self, what: str) -> None:
        super().__init__(ends=False)
        self.what, self.steps = what, 0

    def step(self, action):
        self.steps += 1
        obs, reward, *rest = super().step(action)
        if self.steps < 10:
            return obs, reward, *rest
        return (obs, np.nan, *rest) if self.what == "reward" else (obs * np.nan, reward, *rest)


class Trouble(Walk):
    """The first process to get to step `at` raises, or is killed; the others go on, slowly.

    Args:
        folder: where the first leaves a note for the others.
        kind: "raise", "kill" or "none".
        at: the step.
        seconds: that a step takes.
    """

    def __init__(self, folder: str, kind: str, at: int = 40, seconds: float = 0.0) -> None:
        super().__init__()
        self.folder, self.kind, self.at, self.seconds = Path(folder), kind, at, seconds
        self.steps = 0
        (self.folder / f"pid-{os.getpid()}").touch()

    def step(self, action):
        self.steps += 1
        time.sleep(self.seconds)
        if self.steps == self.at and self.kind != "none" and self.am_first():
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("the world is flat")
        return super().step(action)

    def am_first(self):
        try:
            (self.folder / "taken").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Timed(Walk):
    """Notes when it is made and when it is closed."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.made = Path(folder), time.monotonic()

    def step(self, action):
        time.sleep(0.005)
        return super().step(action)

    def close(self):
        (self.folder / f"{os.getpid()}.txt").write_text(f"{self.made} {time.monotonic()}")
