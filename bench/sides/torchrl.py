"""torchrl: its environments, modules, losses, collector and replay buffers, as its tutorials put them together."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import torch
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from tensordict.nn.distributions import NormalParamExtractor
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import DoubleToFloat, GymWrapper, TransformedEnv
from torchrl.modules import MLP, EGreedyModule, ProbabilisticActor, QValueActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss, DQNLoss, HardUpdate, SACLoss, SoftUpdate
from torchrl.objectives.value import GAE

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
    VALUE_COEF,
    Work,
)

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def independent_normal(loc: torch.Tensor, scale: torch.Tensor) -> Independent:
    """Return the distribution of continuous actions."""
    return Independent(Normal(loc, scale), 1)


def make_env(work: Work) -> Any:
    """Build the environments: gymnasium's vector, or one without it; MuJoCo's are of double precision."""
    if work.num_envs == 1:
        env = GymWrapper(gym.make(work.env), categorical_action_encoding=True)
    else:
        mode = {"autoreset_mode": gym.vector.AutoresetMode.DISABLED}
        envs = gym.make_vec(work.env, work.num_envs, "sync", vector_kwargs=mode)
        env = GymWrapper(envs, categorical_action_encoding=True)
    return env if work.env.startswith("CartPole") else TransformedEnv(env, DoubleToFloat())


def make_mlp(work: Work, inputs: int, outputs: int) -> MLP:
    """Build a net."""
    activation = ACTIVATIONS[work.activation]
    return MLP(in_features=inputs, out_features=outputs, num_cells=list(work.hidden), activation_class=activation)


def collect(work: Work, env: Any, policy: Any, batch: int) -> Iterator[TensorDict]:
    """Collect batches of frames without end."""
    random = -1 if work.algorithm == "ppo" else work.learning_starts
    yield from Collector(
        env, policy, frames_per_batch=batch, total_frames=-1, init_random_frames=random, trust_policy=True
    )


def ppo(work: Work, meter: Meter, env: Any, sizes: tuple[int, int]) -> None:
    """Train PPO."""
    obs_dim, actions = sizes
    spec = env.action_spec
    if work.env.startswith("CartPole"):
        net, out = make_mlp(work, obs_dim, actions), ["logits"]
        keys: dict[str, Any] = {"distribution_class": Categorical}
    else:
        net, out = (
            nn.Sequential(make_mlp(work, obs_dim, actions), AddStateIndependentNormalScale(actions)),
            ["loc", "scale"],
        )
        keys = {"distribution_class": independent_normal}
    module = TensorDictModule(net, ["observation"], out)
    policy = ProbabilisticActor(module, spec=spec, in_keys=out, return_log_prob=True, safe=False, **keys)
    critic = ValueOperator(make_mlp(work, obs_dim, 1), ["observation"])
    advantage = GAE(gamma=work.gamma, lmbda=GAE_LAMBDA, value_network=critic)
    loss = ClipPPOLoss(
        policy,
        critic,
        clip_epsilon=work.clip_eps,
        entropy_coeff=work.entropy_coef,
        critic_coeff=VALUE_COEF,
        loss_critic_type="l2",
        normalize_advantage=True,
    )
    parameters = list(loss.parameters())
    optimizer = torch.optim.Adam(parameters, work.lr, eps=PPO_ADAM_EPS)
    size, frame = work.num_envs * work.horizon, 0
    for data in collect(work, env, policy, size):
        with torch.no_grad():
            advantage(data)
        rows = data.reshape(-1)
        for _ in range(work.epochs):
            for index in torch.randperm(size).split(work.batch_size):
                found = loss(rows[index])
                optimizer.zero_grad()
                (found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(parameters, PPO_MAX_GRAD_NORM)
                optimizer.step()
        frame += size
        meter(frame)


def dqn(work: Work, meter: Meter, env: Any, sizes: tuple[int, int]) -> None:
    """Train DQN."""
    value = QValueActor(make_mlp(work, *sizes), in_keys=["observation"], spec=env.action_spec)
    epsilon = EGreedyModule(env.action_spec, annealing_num_steps=DQN_EPSILON_FRAMES, eps_end=DQN_EPSILON_END)
    policy = nn.Sequential(value, epsilon)
    loss = DQNLoss(value, loss_function="smooth_l1", delay_value=True, action_space=env.action_spec)
    loss.make_value_estimator(gamma=work.gamma)
    target = HardUpdate(loss, value_network_update_interval=DQN_TARGET_EVERY)
    parameters = list(loss.parameters())
    optimizer = torch.optim.Adam(parameters, work.lr)
    buffer = make_buffer(work)
    for frame, data in enumerate(collect(work, env, policy, 1), 1):
        buffer.extend(data.reshape(-1))
        epsilon.step(1)
        if frame >= work.learning_starts:
            optimizer.zero_grad()
            loss(buffer.sample())["loss"].backward()
            nn.utils.clip_grad_norm_(parameters, DQN_MAX_GRAD_NORM)
            optimizer.step()
            target.step()
            meter(frame)


def sac(work: Work, meter: Meter, env: Any, sizes: tuple[int, int]) -> None:
    """Train SAC."""
    obs_dim, actions = sizes
    net = nn.Sequential(make_mlp(work, obs_dim, 2 * actions), NormalParamExtractor())
    module = TensorDictModule(net, ["observation"], ["loc", "scale"])
    policy = ProbabilisticActor(
        module, spec=env.action_spec, in_keys=["loc", "scale"], distribution_class=TanhNormal, safe=False
    )
    critic = ValueOperator(make_mlp(work, obs_dim + actions, 1), ["observation", "action"])
    loss = SACLoss(policy, critic, num_qvalue_nets=2, loss_function="l2", action_spec=env.action_spec)
    loss.make_value_estimator(gamma=work.gamma)
    target = SoftUpdate(loss, tau=SAC_POLYAK)
    optimizer = torch.optim.Adam(loss.parameters(), work.lr)
    buffer = make_buffer(work)
    for frame, data in enumerate(collect(work, env, policy, 1), 1):
        buffer.extend(data.reshape(-1))
        if frame >= work.learning_starts:
            found = loss(buffer.sample())
            optimizer.zero_grad()
            (found["loss_actor"] + found["loss_qvalue"] + found["loss_alpha"]).backward()
            optimizer.step()
            target.step()
            meter(frame)


def make_buffer(work: Work) -> TensorDictReplayBuffer:
    """Build the replay."""
    return TensorDictReplayBuffer(storage=LazyTensorStorage(work.buffer_size), batch_size=work.batch_size)


def run(work: Work, meter: Meter, threads: int, precision: str) -> None:  # noqa: ARG001 - the lab's
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    single = gym.make(work.env)
    space = single.action_space
    actions = int(space.n) if isinstance(space, gym.spaces.Discrete) else space.shape[0]
    sizes = single.observation_space.shape[0], actions
    {"ppo": ppo, "dqn": dqn, "sac": sac}[work.algorithm](work, meter, make_env(work), sizes)
