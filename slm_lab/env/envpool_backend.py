"""Environments of envpool: in C++, on threads of their own. An extra: `pip install slm-lab[envpool]`."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from slm_lab.env.spaces import lab_action_space, lab_obs_space
from slm_lab.env.vec_env import EpisodeStats, State, Step, VecEnv
from slm_lab.lib.rng import derive_seed
from slm_lab.spec.errors import SpecError

SAME_AS_GYMNASIUM = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Swimmer-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
)
"""Every step of these is compared with gymnasium's by the tests."""


class EnvpoolVecEnv(VecEnv):
    """N environments of one pool.

    It cannot be put back where it was: a run that is resumed goes on with fresh episodes.

    Args:
        name: id of gymnasium, one of `SAME_AS_GYMNASIUM`.
        num_envs: N.
        seed: of the pool; each environment gets a stream of its own, derived from it.
        options: of the environment.
        time_limit: steps after which an episode is truncated.
        num_threads: of the pool.

    Raises:
        SpecError: envpool is not installed, has another environment by that name, or none with such options.
    """

    frame_stack = 1

    def __init__(
        self, name: str, num_envs: int, seed: int, options: Mapping[str, Any], time_limit: int, num_threads: int
    ) -> None:
        if name not in SAME_AS_GYMNASIUM:
            raise SpecError(
                f'env.backend: of {name}, envpool is not known to have the same; use "auto", or one of '
                f"{', '.join(SAME_AS_GYMNASIUM)}"
            )
        self.name, self.num_envs, self._seed = name, num_envs, seed
        self._time_limit, self._restores = time_limit, 0
        # of an episode that ends at its own limit, it would not tell whether it was over as well
        own = {"num_envs": num_envs, "num_threads": num_threads, "max_episode_steps": time_limit + 1}
        self._options = {**options, **own}
        self._env = self._make(seed)
        obs_space, action_space = self._env.observation_space, self._env.action_space
        self.obs_space, _ = lab_obs_space(obs_space, name)
        self.action_space, self._to_env = lab_action_space(action_space, name)
        self._action_dtype = action_space.dtype
        self.stats = EpisodeStats(num_envs)

    def reset(self) -> np.ndarray:
        """Start an episode in every environment."""
        self.obs = self._env.reset()[0].astype(np.float32)
        self.stats.forget()
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """Act in every environment."""
        obs, reward, terminated, _, _ = self._env.step(self._to_env(action).astype(self._action_dtype))
        self.stats.add(reward)
        truncated = self.stats.running_length >= self._time_limit
        self.obs = final_obs = obs.astype(np.float32)
        ended = (terminated | truncated).nonzero()[0]
        if len(ended):
            self.stats.finish(ended)
            self.obs = final_obs.copy()
            self.obs[ended] = self._env.reset(ended)[0]  # or the next step would do it, and pay nothing for it
        return Step(self.obs, reward.astype(np.float32), terminated.copy(), truncated, final_obs)

    def state_dict(self) -> State:
        """Return the statistics, and how often it was restored."""
        return {"stats": self.stats.state_dict(), "restores": self._restores}

    def load_state_dict(self, state: State) -> bool:
        """Go on with fresh episodes, and not with those that have been lived."""
        self.stats.load_state_dict(state["stats"])
        self._restores = state.get("restores", 0) + 1
        self._env.close()
        self._env = self._make(derive_seed(self._seed, "again", self._restores))
        self.reset()
        return False

    def close(self) -> None:
        """Close the pool."""
        self._env.close()

    def _make(self, seed: int) -> Any:
        try:
            envpool = import_module("envpool")
        except ImportError as error:
            raise SpecError(
                f'env.backend: envpool cannot be loaded ({error}); install it with: pip install "slm-lab[envpool]"'
            ) from error
        try:
            with warnings.catch_warnings(action="ignore"):  # of bounds with more digits than the numbers have
                env = envpool.make(self.name, env_type="gymnasium", seed=seed % 2**31, **self._options)
                _ = env.observation_space  # made now, and kept
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise SpecError(
                f"env: envpool cannot make {self.name} so ({' '.join(str(error).split())[:200]}); remove its options"
            ) from error
        return env
