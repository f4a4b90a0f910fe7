"""Environments of gymnasium on MuJoCo, simulated side by side in C.

Those are here whose observations and rewards need no more than positions, velocities and actions: what others show
(contact forces, centres of mass), a batch does not compute.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.utils import seeding

from slm_lab.env.registry import make_single
from slm_lab.env.spaces import lab_action_space, lab_obs_space
from slm_lab.env.vec_env import EpisodeStats, State, Step, VecEnv
from slm_lab.env.wrappers import clip_array
from slm_lab.lib.rng import derive_seed

BATCH_FROM_ENVS = 2
"""Environments from which on the batch is faster than a loop: on one thread by a tenth to a third, on two by half."""

Verdict = tuple[np.ndarray, np.ndarray]
"""[N] reward, as the game scores it; [N] terminated."""


class Moved(NamedTuple):
    """Where a step has brought N environments.

    Attributes:
        speed: [N] along x.
        action: [N, *action] of the step.
        qpos: [N, nq] positions.
        qvel: [N, nv] velocities.
    """

    speed: np.ndarray
    action: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray


class Task(NamedTuple):
    """What one of gymnasium's classes has in its methods, and not as an attribute.

    Attributes:
        judge: what it pays, and when it ends. Gets an environment of gymnasium, for its numbers.
        shown: velocities are not shown beyond.
    """

    judge: Callable[[Any, Moved], Verdict]
    shown: float = np.inf


def _run(one: Any, moved: Moved) -> Verdict:
    return one._forward_reward_weight * moved.speed - _effort(one, moved), np.zeros(len(moved.speed), bool)


def _hop(one: Any, moved: Moved) -> Verdict:
    sane = _within(moved.qpos[:, 2:], one._healthy_state_range).all(axis=1)
    sane &= _within(moved.qvel, one._healthy_state_range).all(axis=1)
    return _stay_up(one, moved, sane & _upright(one, moved))


def _walk(one: Any, moved: Moved) -> Verdict:
    return _stay_up(one, moved, _upright(one, moved))


def _balance(_: Any, moved: Moved) -> Verdict:
    up = np.abs(moved.qpos[:, 1]) <= 0.2  # and finite: of what is not, MuJoCo itself makes the model's first state
    return up.astype(np.float64), ~up


def _stay_up(one: Any, moved: Moved, healthy: np.ndarray) -> Verdict:
    gain = one._forward_reward_weight * moved.speed + healthy * one._healthy_reward
    return gain - _effort(one, moved), ~healthy


def _upright(one: Any, moved: Moved) -> np.ndarray:
    return _within(moved.qpos[:, 1], one._healthy_z_range) & _within(moved.qpos[:, 2], one._healthy_angle_range)


def _within(x: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    return (low < x) & (x < high)


def _effort(one: Any, moved: Moved) -> np.ndarray:
    return one._ctrl_cost_weight * np.square(moved.action).sum(axis=1)


TASKS: dict[Any, Task] = {
    "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv": Task(_run),
    "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv": Task(_run),
    "gymnasium.envs.mujoco.hopper_v5:HopperEnv": Task(_hop, shown=10.0),
    "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv": Task(_walk, shown=10.0),
    "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv": Task(_balance),
}
"""Those that are simulated here, by what gymnasium makes them of."""


def is_batched(found: Any) -> bool:
    """Tell whether an environment is one of those that are simulated here, as gymnasium itself has it."""
    unchanged = isinstance(found, Registered) and not (found.kwargs or found.additional_wrappers)
    return unchanged and found.entry_point in TASKS


class MujocoVecEnv(VecEnv):
    """N simulations of one model, with the same bits as a loop of gymnasium's environments.

    One of those is kept: it begins the episodes of all, each with its own random stream, and knows the numbers that
    rewards are made of.

    Args:
        found: what gymnasium has registered.
        num_envs: N.
        seed: each environment gets a stream of its own, derived from it.
        time_limit: steps after which an episode is truncated.
        num_threads: of the simulations; the results do not depend on it.
    """

    frame_stack = 1

    def __init__(self, found: Registered, num_envs: int, seed: int, time_limit: int, num_threads: int) -> None:
        import mujoco  # only where it is used: it takes a fifth of a second
        from mujoco.batch import Batch

        self._one: Any = make_single(found, found.id, {})[0].unwrapped
        self._task, model = TASKS[found.entry_point], self._one.model
        self.num_envs = num_envs
        self.obs_space, _ = lab_obs_space(self._one.observation_space, found.id)
        self.action_space, self._to_env = lab_action_space(self._one.action_space, found.id)
        self.stats = EpisodeStats(num_envs)
        self._seed, self._time_limit = seed, time_limit
        self._streams = self._make_streams()
        self._batch = Batch(model, num_envs, num_threads)  # no more threads than environments
        self._qpos, self._qvel, self._ctrl = map(self._batch.bind, ("qpos", "qvel", "ctrl"))
        copy, everything = mujoco.mj_getState, mujoco.mjtState.mjSTATE_INTEGRATION  # ty: ignore[missing-attribute]
        self._copy_state = partial(copy, model, self._one.data, sig=everything)
        self._hidden = model.nq + model.nv - self.obs_space.shape[0]  # first positions: the place is not shown

    def reset(self) -> np.ndarray:
        """Start an episode in every environment."""
        self.obs = np.empty((self.num_envs, *self.obs_space.shape), np.float32)
        self._begin(range(self.num_envs))
        self.stats.forget()
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """Act in every environment."""
        action, before = self._to_env(action), self._qpos[:, 0].copy()
        self._ctrl[:] = action
        self._batch.step(nstep=self._one.frame_skip)
        speed = (self._qpos[:, 0] - before) / self._one.dt
        reward, terminated = self._task.judge(self._one, Moved(speed, action, self._qpos, self._qvel))
        self.stats.add(reward)
        truncated = self.stats.running_length >= self._time_limit
        self.obs = final_obs = self._observe()
        ended = (terminated | truncated).nonzero()[0]
        if len(ended):
            self.stats.finish(ended)
            self.obs = final_obs.copy()
            self._begin(ended)
        return Step(self.obs, reward.astype(np.float32), terminated, truncated, final_obs)

    def state_dict(self) -> State:
        """Return the statistics, all that is simulated, and where the random streams are."""
        streams = {str(i): stream.bit_generator.state for i, stream in enumerate(self._streams)}
        return {"stats": self.stats.state_dict(), "mujoco": {"rows": self._batch.state.copy(), "streams": streams}}

    def load_state_dict(self, state: State) -> bool:
        """Go on from `state`, exactly; with fresh episodes where it is that of a loop, or of another MuJoCo."""
        self.stats.load_state_dict(state["stats"])
        own = state.get("mujoco")
        if own is None or own["rows"].shape != self._batch.state.shape:
            # not the streams from the beginning: their first episodes have been lived
            self._streams = self._make_streams("again", self.stats.episodes)
            self.reset()
            return False
        self._batch.state[:] = own["rows"]
        for i, stream in enumerate(self._streams):
            stream.bit_generator.state = own["streams"][str(i)]
        self.obs = self._observe()
        return True

    def close(self) -> None:
        """Close gymnasium's environment; the simulations go with the object."""
        self._one.close()

    def _make_streams(self, *path: str | int) -> list[np.random.Generator]:
        return [seeding.np_random(derive_seed(self._seed, *path, i))[0] for i in range(self.num_envs)]

    def _begin(self, envs: Iterable[int]) -> None:
        """Start the next episode of `envs`, in place in `obs`."""
        for i in envs:
            self._one.np_random = self._streams[i]
            self.obs[i], _ = self._one.reset()
            self._copy_state(state=self._batch.state[i])

    def _observe(self) -> np.ndarray:
        obs = np.empty((self.num_envs, *self.obs_space.shape), np.float32)
        positions = self._qpos.shape[1] - self._hidden
        obs[:, :positions] = self._qpos[:, self._hidden :]
        obs[:, positions:] = clip_array(self._qvel, -self._task.shown, self._task.shown)
        return obs
