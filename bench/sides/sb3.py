"""stable-baselines3, as its documentation says."""

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from bench.meter import Meter
from bench.works import (
    DQN_EPSILON_END,
    DQN_EPSILON_FRAMES,
    DQN_MAX_GRAD_NORM,
    DQN_TARGET_EVERY,
    GAE_LAMBDA,
    PPO_ADAM_EPS,
    PPO_MAX_GRAD_NORM,
    SAC_POLYAK,
    STICKY,
    VALUE_COEF,
    Work,
)


def make_envs(work: Work) -> Any:
    """Build the environments; emulators in processes of their own, which is faster than in this one."""
    if not work.images:
        return make_vec_env(work.env, work.num_envs, vec_env_cls=DummyVecEnv)
    import ale_py

    gym.register_envs(ale_py)
    envs = make_vec_env(atari, work.num_envs, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "forkserver"})
    return VecFrameStack(envs, 4)


def atari(render_mode: str | None = None) -> gym.Env:
    """Build one game: the preprocessing of the others, and rewards by their sign."""
    import ale_py
    from gymnasium.wrappers import AtariPreprocessing, TransformReward

    gym.register_envs(ale_py)
    game = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=STICKY, render_mode=render_mode)
    game = AtariPreprocessing(game, grayscale_newaxis=True)
    return TransformReward(game, lambda reward: float(reward > 0) - float(reward < 0))


def run(work: Work, meter: Meter, threads: int, precision: str) -> None:  # noqa: ARG001 - the lab's
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    # what stands here is as the documentation has it, but for `train`, after which the meter is told
    cls, keys = {"ppo": (PPO, ppo_keys), "dqn": (DQN, dqn_keys), "sac": (SAC, sac_keys)}[work.algorithm]

    class Metered(cls):
        def train(self, *args: Any, **kwargs: Any) -> None:
            super().train(*args, **kwargs)
            meter(self.num_timesteps)

    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[work.activation]
    net = {} if work.images else {"net_arch": list(work.hidden), "activation_fn": activation}
    policy = "CnnPolicy" if work.images else "MlpPolicy"
    common = {"learning_rate": work.lr, "gamma": work.gamma, "batch_size": work.batch_size, "device": "cpu"}
    Metered(policy, make_envs(work), **common, **keys(work, net)).learn(work.max_frame)


def ppo_keys(work: Work, net: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of PPO."""
    return {
        "n_steps": work.horizon,
        "n_epochs": work.epochs,
        "gae_lambda": GAE_LAMBDA,
        "clip_range": work.clip_eps,
        "ent_coef": work.entropy_coef,
        "vf_coef": VALUE_COEF,
        "max_grad_norm": PPO_MAX_GRAD_NORM,
        "policy_kwargs": {**net, "optimizer_kwargs": {"eps": PPO_ADAM_EPS}},
    }


def replay_keys(work: Work, net: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of what learns from a replay."""
    return {
        "buffer_size": work.buffer_size,
        "learning_starts": work.learning_starts,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": net,
    }


def dqn_keys(work: Work, net: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of DQN."""
    return {
        **replay_keys(work, net),
        "target_update_interval": DQN_TARGET_EVERY,
        "exploration_fraction": DQN_EPSILON_FRAMES / work.max_frame,
        "exploration_final_eps": DQN_EPSILON_END,
        "max_grad_norm": DQN_MAX_GRAD_NORM,
    }


def sac_keys(work: Work, net: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of SAC."""
    return {**replay_keys(work, net), "tau": SAC_POLYAK}
