"""tianshou: its algorithms, its collector and its buffers; the loop of its trainers without their progress bars."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from tianshou.algorithm import DQN, PPO, SAC
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.modelfree.sac import AutoAlpha, SACPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from bench.meter import Meter
from bench.works import (
    DQN_EPSILON_END,
    DQN_EPSILON_FRAMES,
    DQN_TARGET_EVERY,
    GAE_LAMBDA,
    PPO_ADAM_EPS,
    PPO_MAX_GRAD_NORM,
    SAC_POLYAK,
    STICKY,
    VALUE_COEF,
    Work,
)


def make_env(work: Work) -> gym.Env:
    """Build one environment."""
    if not work.images:
        return gym.make(work.env)
    import ale_py
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformReward

    gym.register_envs(ale_py)
    game = AtariPreprocessing(gym.make(work.env, frameskip=1, repeat_action_probability=STICKY))
    game = TransformReward(game, lambda reward: float(reward > 0) - float(reward < 0))
    return FrameStackObservation(game, 4)


def normal(out: tuple[torch.Tensor, torch.Tensor]) -> Independent:
    """Return the distribution of continuous actions."""
    return Independent(Normal(*out), 1)


def make_ppo(work: Work, env: gym.Env) -> PPO:
    """Build PPO; it has no clipping of advantages or values, like the others."""
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[work.activation]
    shape, actions = env.observation_space.shape, env.action_space

    def body() -> Any:
        return Net(state_shape=shape, hidden_sizes=work.hidden, activation=activation)

    if work.images:
        from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet

        shared = DQNet(*shape, actions.n, features_only=True, output_dim_added_layer=work.hidden[0])
        shared = ScaledObsInputActionReprNet(shared)
        body = lambda: shared  # noqa: E731
    if isinstance(actions, gym.spaces.Discrete):
        actor = DiscreteActor(preprocess_net=body(), action_shape=actions.n, softmax_output=False)
        critic, dist = DiscreteCritic(preprocess_net=body()), lambda logits: Categorical(logits=logits)
    else:
        actor = ContinuousActorProbabilistic(preprocess_net=body(), action_shape=actions.shape, unbounded=True)
        critic, dist = ContinuousCritic(preprocess_net=body()), normal
    continuous = not isinstance(actions, gym.spaces.Discrete)
    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=dist,
        action_space=actions,
        action_scaling=continuous,
        action_bound_method="clip" if continuous else None,
    )
    return PPO(
        policy=policy,
        critic=critic,
        optim=AdamOptimizerFactory(lr=work.lr, eps=PPO_ADAM_EPS),
        eps_clip=work.clip_eps,
        vf_coef=VALUE_COEF,
        ent_coef=work.entropy_coef,
        max_grad_norm=PPO_MAX_GRAD_NORM,
        gae_lambda=GAE_LAMBDA,
        gamma=work.gamma,
        max_batchsize=work.batch_size,
    )


def make_dqn(work: Work, env: gym.Env) -> DQN:
    """Build DQN; it has no clipping of the gradient, which the others do."""
    net = Net(state_shape=env.observation_space.shape, action_shape=env.action_space.n, hidden_sizes=work.hidden)
    policy = DiscreteQLearningPolicy(model=net, action_space=env.action_space, eps_training=1.0)
    keys = {"gamma": work.gamma, "target_update_freq": DQN_TARGET_EVERY, "is_double": False, "huber_loss_delta": 1.0}
    return DQN(policy=policy, optim=AdamOptimizerFactory(lr=work.lr), **keys)


def make_sac(work: Work, env: gym.Env) -> SAC:
    """Build SAC."""
    shape, actions, adam = env.observation_space.shape, env.action_space, AdamOptimizerFactory(lr=work.lr)
    body = Net(state_shape=shape, hidden_sizes=work.hidden)
    keys = {"action_shape": actions.shape, "unbounded": True, "conditioned_sigma": True}
    policy = SACPolicy(actor=ContinuousActorProbabilistic(preprocess_net=body, **keys), action_space=actions)
    critics = [
        ContinuousCritic(
            preprocess_net=Net(state_shape=shape, action_shape=actions.shape, hidden_sizes=work.hidden, concat=True)
        )
        for _ in range(2)
    ]
    return SAC(
        policy=policy,
        policy_optim=adam,
        critic=critics[0],
        critic_optim=adam,
        critic2=critics[1],
        critic2_optim=adam,
        tau=SAC_POLYAK,
        gamma=work.gamma,
        alpha=AutoAlpha(-float(actions.shape[0]), 0.0, adam),
    )


def run(work: Work, meter: Meter, threads: int, precision: str) -> None:  # noqa: ARG001 - the lab's
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    makers: dict[str, Callable[..., Any]] = {"ppo": make_ppo, "dqn": make_dqn, "sac": make_sac}
    algorithm = makers[work.algorithm](work, make_env(work))
    vector = SubprocVectorEnv if work.images else DummyVectorEnv
    envs = vector([lambda: make_env(work)] * work.num_envs)
    on_policy = work.algorithm == "ppo"
    size = work.num_envs * work.horizon if on_policy else work.buffer_size
    # pages that are not touched take no memory: rows are allocated with the first transition
    collector = Collector(algorithm, envs, VectorReplayBuffer(size, work.num_envs), exploration_noise=not on_policy)
    collector.reset()
    frame = 0
    while True:
        with policy_within_training_step(algorithm.policy):
            if on_policy:
                frame += collector.collect(n_step=size).n_collected_steps
                algorithm.update(buffer=collector.buffer, batch_size=work.batch_size, repeat=work.epochs)
                collector.reset_buffer(keep_statistics=True)
                meter(frame)
                continue
            starting = frame < work.learning_starts
            if work.algorithm == "dqn":
                decayed = 1 - (1 - DQN_EPSILON_END) * frame / DQN_EPSILON_FRAMES
                algorithm.policy.set_eps_training(max(DQN_EPSILON_END, decayed))
            count = work.learning_starts if starting else 1
            frame += collector.collect(n_step=count, random=starting).n_collected_steps
            algorithm.update(buffer=collector.buffer, sample_size=work.batch_size)
            meter(frame)
