"""The environment room: one `VecEnv`, whatever the backend.

Everything is built by `make_env` from the `env` part of a spec. Between a backend and the agent lie, in this order,
the conversions that the spec asks for: image size, observation normaliser and its clipping, frame stack, reward scale,
reward normaliser, reward clipping.

The rewards of Atari are clipped to their sign, unless the spec has a `clip_reward` (false for none).
"""

import os
import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from loguru import logger

from slm_lab.env.envpool_backend import EnvpoolVecEnv
from slm_lab.env.gym_backend import GymVecEnv
from slm_lab.env.mujoco_backend import BATCH_FROM_ENVS, MujocoVecEnv, is_batched
from slm_lab.env.native_backend import FROM_ENVS, CartPoleVecEnv, is_cart_pole
from slm_lab.env.registry import find_env, is_atari, make_single, register_wrapper
from slm_lab.env.vec_env import Episode, EpisodeStats, Step, VecEnv
from slm_lab.env.wrappers import (
    FrameStack,
    MapObs,
    MapReward,
    NormalizeObs,
    NormalizeReward,
    clip_array,
    resize_images,
)
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.spec import EnvSpec

__all__ = ["Episode", "EpisodeStats", "Step", "VecEnv", "make_env", "make_spaces", "register_wrapper"]


def make_env(
    spec: "EnvSpec",
    seed: int,
    *,
    gamma: float = 0.99,
    num_envs: int | None = None,
    training: bool = True,
    render_mode: str | None = None,
    num_threads: int = 1,
) -> VecEnv:
    """Build the environments of a spec.

    Args:
        spec: its `env` part.
        seed: the same seed gives the same streams; each environment has its own.
        gamma: discount of the reward normaliser.
        num_envs: N, where it is not to be the spec's.
        training: False freezes the normalisers.
        render_mode: "human" (a window) or "rgb_array" (for `render`), of the first environment; None for no pictures.
        num_threads: of emulators and simulators that have threads.

    Raises:
        SpecError: no such environment or wrapper, arguments that it does not take, spaces that no agent can deal with,
            no display for a window.
    """
    count, found = num_envs or spec.num_envs, find_env(spec.name)
    if render_mode is not None:
        _prepare_rendering(render_mode)
    if is_atari(found) and spec.backend != "gymnasium":
        env = _atari(spec, found, count, seed, render_mode, num_threads)
        clip_reward = "sign" if spec.clip_reward is None else spec.clip_reward
    else:
        env = _gymnasium(spec, found, count, seed, render_mode, num_threads)
        clip_reward = spec.clip_reward
    if spec.normalize_obs:
        env = NormalizeObs(env, clip=spec.clip_obs, training=training)
    elif spec.clip_obs is not None:
        env = _clip_obs(env, spec.clip_obs)
    if spec.frame_op_len is not None and env.frame_stack == 1:
        env = FrameStack(env, spec.frame_op_len, concat=spec.frame_op == "concat")
    return _map_rewards(env, spec, clip_reward, gamma, training)


def make_spaces(spec: "EnvSpec") -> tuple[Box, gym.Space]:
    """Return the spaces of a spec's observations and actions as an agent sees them; SpecError as `make_env`."""
    env = make_env(spec, seed=0, num_envs=1)
    env.close()
    return env.obs_space, env.action_space


def _gymnasium(spec: "EnvSpec", found: Any, count: int, seed: int, render_mode: str | None, num_threads: int) -> VecEnv:
    if spec.backend == "ale":
        raise SpecError(f'env.backend: {spec.name} does not run on {spec.backend!r}; use "auto" or "gymnasium"')
    plain = not (spec.wrappers or spec.image_downsize or render_mode)
    limit = _lower(getattr(found, "max_episode_steps", None), spec.max_t)
    if spec.backend == "envpool" and not render_mode:  # it is gymnasium that draws
        if not plain:
            raise SpecError(
                'env.backend: "envpool" takes no wrappers and no image_downsize; remove them, or use "auto"'
            )
        return EnvpoolVecEnv(spec.name, count, seed, spec.kwargs, limit or 0, num_threads)
    if spec.backend == "auto" and plain and not spec.kwargs and limit:
        if is_cart_pole(found) and count >= FROM_ENVS:
            return CartPoleVecEnv(found, count, seed, limit)
        if is_batched(found) and count >= BATCH_FROM_ENVS:
            return MujocoVecEnv(found, count, seed, limit, num_threads)
    built = [
        make_single(found, spec.name, spec.kwargs, spec.wrappers, render_mode if index == 0 else None)
        for index in range(count)
    ]
    env = GymVecEnv([env for env, _ in built], seed, spec.name, time_limit=_lower(built[0][1], spec.max_t))
    return env if spec.image_downsize is None else _resize(env, spec.name, (*spec.image_downsize,))


def _lower(*limits: int | None) -> int | None:
    """Return the lowest of the limits that there are."""
    return min((limit for limit in limits if limit is not None), default=None)


def _atari(spec: "EnvSpec", found: Any, count: int, seed: int, render_mode: str | None, num_threads: int) -> VecEnv:
    from slm_lab.env.atari_backend import AtariVecEnv  # loads the emulator

    if spec.backend not in ("auto", "ale"):
        raise SpecError(f'env.backend: {spec.name} does not run on {spec.backend!r}; use "auto", "ale" or "gymnasium"')
    if spec.wrappers:
        raise SpecError(
            f"env.wrappers: {spec.name} runs on a vector emulator, which takes no wrappers of single environments; "
            'remove them, or set "backend": "gymnasium"'
        )
    game = found.kwargs
    if game["frameskip"] not in (1, 4):
        logger.warning("env.name: {} skips {} frames by chance; here it is always 4", spec.name, game["frameskip"])
    options = {"repeat_action_probability": game["repeat_action_probability"], **spec.kwargs}
    if spec.frame_op_len is not None:
        options["stack_num"] = spec.frame_op_len
    if spec.image_downsize is not None:
        options["img_height"], options["img_width"] = spec.image_downsize
    return AtariVecEnv(
        game["game"],
        count,
        seed,
        options,
        time_limit=spec.max_t,
        render_mode=render_mode,
        num_threads=num_threads,
    )


def _resize(env: VecEnv, name: str, size: tuple[int, ...]) -> VecEnv:
    shape = env.obs_space.shape
    if env.obs_space.dtype != np.uint8 or len(shape) != 3:
        raise SpecError(f"env.image_downsize: {name} shows no images, but arrays of shape {shape}; remove the key")
    return MapObs(env, resize_images(shape, size), Box(0, 255, (shape[0], *size), np.uint8))


def _clip_obs(env: VecEnv, bound: float) -> VecEnv:
    space = Box(-bound, bound, env.obs_space.shape, np.float32)
    return MapObs(env, lambda obs: clip_array(obs, -bound, bound).astype(np.float32, copy=False), space)


def _map_rewards(env: VecEnv, spec: "EnvSpec", clip: Any, gamma: float, training: bool) -> VecEnv:
    scale = spec.reward_scale
    if scale == "sign":
        env = MapReward(env, np.sign)
    elif scale is not None and scale != 1:
        env = MapReward(env, lambda reward: reward * scale)
    if spec.normalize_reward:
        env = NormalizeReward(env, gamma, training)
    if clip == "sign":
        env = MapReward(env, np.sign)
    elif clip:
        low, high = clip if isinstance(clip, (list, tuple)) else (-clip, clip)
        env = MapReward(env, lambda reward: clip_array(reward, low, high))
    return env


def _prepare_rendering(render_mode: str) -> None:
    """Let MuJoCo draw without a display; complain where a window is wanted and there is no display."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    if render_mode == "human" and "SDL_VIDEODRIVER" not in os.environ:
        raise SpecError("render: there is no display to draw to (DISPLAY is not set); record a video instead")
    os.environ.setdefault("MUJOCO_GL", "egl")
