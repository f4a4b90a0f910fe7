"""The works: the one table that every side reads its numbers from."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """Something to be done, the same on every side.

    Attributes:
        name: what the command line calls it.
        title: what the tables call it.
        algorithm: who learns.
        env: id of gymnasium.
        num_envs: environments stepped together.
        batch_size: rows of a gradient step.
        hidden: widths of the hidden layers; of what follows the convolutions, where the observations are images.
        activation: of the hidden layers.
        lr: learning rate of Adam.
        gamma: discount.
        horizon: steps of each environment in a rollout (PPO).
        epochs: over each rollout (PPO).
        clip_eps: of the policy's ratio (PPO).
        entropy_coef: weight of the entropy (PPO).
        learning_starts: frames before the first update (DQN, SAC); one update per frame from there on.
        buffer_size: transitions that are remembered (DQN, SAC).
        sessions: 0 for a window of steady training; else this many seeds are trained, from launch to results.
        max_frame: where a session ends.
        floors: the ratio to reach, by precision.
    """

    name: str
    title: str
    algorithm: Literal["ppo", "dqn", "sac"]
    env: str
    num_envs: int
    batch_size: int
    hidden: tuple[int, ...]
    activation: Literal["tanh", "relu"]
    lr: float
    gamma: float = 0.99
    horizon: int = 0
    epochs: int = 0
    clip_eps: float = 0.2
    entropy_coef: float = 0.0
    learning_starts: int = 1000
    buffer_size: int = 0
    sessions: int = 0
    max_frame: int = 100_000_000
    floors: tuple[tuple[str, float], ...] = ()

    @property
    def images(self) -> bool:
        """Whether it is played from the screen."""
        return self.env.startswith("ALE/")

    @property
    def steps_per_event(self) -> int:
        """Gradient steps of one training event."""
        return self.epochs * self.num_envs * self.horizon // self.batch_size if self.algorithm == "ppo" else 1


GAE_LAMBDA = 0.95
VALUE_COEF = 0.5
PPO_MAX_GRAD_NORM = 0.5
PPO_ADAM_EPS = 1e-5
DQN_MAX_GRAD_NORM = 10.0
DQN_TARGET_EVERY = 500
DQN_EPSILON_END = 0.05
DQN_EPSILON_FRAMES = 10_000
SAC_POLYAK = 0.005
STICKY = 0.25
"""Probability that the Atari emulator repeats the last action."""

_CARTPOLE: dict[str, Any] = {
    "algorithm": "ppo",
    "env": "CartPole-v1",
    "num_envs": 8,
    "horizon": 128,
    "epochs": 4,
    "batch_size": 256,
    "hidden": (64, 64),
    "activation": "tanh",
    "lr": 2.5e-4,
    "entropy_coef": 0.01,
}

_ALL = (
    Work("ppo_cartpole", "PPO CartPole-v1", floors=(("float32", 3.5),), **_CARTPOLE),
    Work(
        name="ppo_halfcheetah",
        title="PPO HalfCheetah-v5",
        algorithm="ppo",
        env="HalfCheetah-v5",
        num_envs=8,
        horizon=256,
        epochs=10,
        batch_size=64,
        hidden=(64, 64),
        activation="tanh",
        lr=3e-4,
        floors=(("float32", 2.8),),
    ),
    Work(
        name="dqn_cartpole",
        title="DQN CartPole-v1",
        algorithm="dqn",
        env="CartPole-v1",
        num_envs=1,
        batch_size=64,
        hidden=(64, 64),
        activation="relu",
        lr=2.5e-4,
        buffer_size=50_000,
        floors=(("float32", 3.3),),
    ),
    Work(
        name="sac_halfcheetah",
        title="SAC HalfCheetah-v5",
        algorithm="sac",
        env="HalfCheetah-v5",
        num_envs=1,
        batch_size=256,
        hidden=(256, 256),
        activation="relu",
        lr=3e-4,
        buffer_size=1_000_000,
        floors=(("float32", 2.0), ("bfloat16", 2.4)),
    ),
    Work(
        name="ppo_pong",
        title="PPO ALE/Pong-v5",
        algorithm="ppo",
        env="ALE/Pong-v5",
        num_envs=8,
        horizon=128,
        epochs=4,
        batch_size=256,
        hidden=(512,),
        activation="relu",
        lr=2.5e-4,
        clip_eps=0.1,
        entropy_coef=0.01,
        floors=(("float32", 1.1), ("bfloat16", 1.5)),
    ),
    Work("trial", "a trial of 4 sessions", sessions=4, max_frame=200_000, floors=(("float32", 3.0),), **_CARTPOLE),
)
WORKS = {work.name: work for work in _ALL}
