"""PPO in one file (Schulman et al. 2017, arXiv:1707.06347): see the package for the modes."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal

from bench.meter import Meter
from bench.scripts.parts import make_net, make_step, orthogonal
from bench.works import GAE_LAMBDA, PPO_ADAM_EPS, PPO_MAX_GRAD_NORM, STICKY, VALUE_COEF, Work

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def make_envs(work: Work, threads: int) -> Any:
    """Build the environments: the emulator's own vector for Atari, gymnasium's for the rest."""
    if work.images:
        from ale_py.vector_env import AtariVectorEnv

        options = {"repeat_action_probability": STICKY, "autoreset_mode": "SameStep"}
        return AtariVectorEnv("pong", work.num_envs, num_threads=threads, **options)
    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.make_vec(work.env, work.num_envs, "sync", vector_kwargs={"autoreset_mode": mode, "copy": False})


class Agent(nn.Module):
    """Policy and value: two nets, or two heads of the Nature CNN where there are images."""

    def __init__(self, work: Work, envs: Any) -> None:
        super().__init__()
        space = envs.single_action_space
        self.discrete = isinstance(space, gym.spaces.Discrete)
        outputs = int(space.n) if self.discrete else space.shape[0]
        activation = ACTIVATIONS[work.activation]
        self.body: nn.Module = nn.Identity()
        sizes = (envs.single_observation_space.shape[0], *work.hidden)
        if work.images:
            convs = [nn.Conv2d(4, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
            layers = [part for conv in convs for part in (conv, activation())]
            self.body = orthogonal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, *work.hidden), activation()))
            sizes = work.hidden
        self.scale = 1 / 255 if work.images else 1.0
        self.actor = make_net(sizes, outputs, activation, 0.01)
        self.critic = make_net(sizes, 1, activation, 1.0)
        self.log_std = None if self.discrete else nn.Parameter(torch.zeros(outputs))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return logits or means [B, A], the log standard deviations [A] of actions that have any, and values [B]."""
        features = self.body(obs.float() * self.scale)
        return self.actor(features), self.log_std, self.critic(features).squeeze(-1)


def policy_of(out: Tensor, log_std: Tensor | None) -> Distribution:
    """Return the distribution of actions."""
    return Categorical(logits=out) if log_std is None else Normal(out, log_std.exp().expand_as(out))


def joint(x: Tensor) -> Tensor:
    """Add up over the dimensions of an action: [B, A] -> [B]."""
    return x if x.dim() == 1 else x.sum(-1)


def ppo_loss(work: Work, net: Any, *batch: Tensor) -> Tensor:
    """Return the loss of a minibatch: obs, action, old log-probability, advantage, target of the value."""
    obs, action, old, advantage, target = batch
    *out, value = net(obs)
    policy = policy_of(*out)
    ratio = (joint(policy.log_prob(action)) - old).exp()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = ratio.clamp(1 - work.clip_eps, 1 + work.clip_eps)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = (value - target).square().mean()
    return policy_loss + VALUE_COEF * value_loss - work.entropy_coef * joint(policy.entropy()).mean()


def run(work: Work, meter: Meter, threads: int, mode: str) -> None:
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    Distribution.set_default_validate_args(False)
    envs = make_envs(work, threads)
    agent = Agent(work, envs)
    update = make_step(agent, partial(ppo_loss, work), mode, work.lr, PPO_ADAM_EPS, PPO_MAX_GRAD_NORM)

    def act(obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *out, value = agent(obs)
        policy = policy_of(*out)
        action = policy.sample()
        return action, joint(policy.log_prob(action)), value

    act = torch.compile(act) if mode != "eager" else act
    steps, count = work.horizon, work.num_envs
    space = envs.single_observation_space
    first, _ = envs.reset(seed=0)
    obs = np.zeros((steps + 1, count, *space.shape), np.uint8 if work.images else np.float32)
    obs[0] = first
    log_prob, reward, done = (np.zeros((steps, count), np.float32) for _ in range(3))
    value = np.zeros((steps + 1, count), np.float32)
    frame = 0
    while True:
        actions = []
        with torch.no_grad():
            for t in range(steps):
                action, chosen, estimate = act(torch.from_numpy(obs[t]))
                actions.append(action)
                log_prob[t], value[t] = chosen.numpy(), estimate.numpy()
                move = action.numpy() if agent.discrete else action.clamp(-1, 1).numpy()
                obs[t + 1], reward[t], terminated, truncated, _ = envs.step(move)
                done[t] = terminated | truncated
            value[steps] = agent(torch.from_numpy(obs[steps]))[-1].numpy()
        advantage, trace = np.zeros_like(reward), np.zeros(count, np.float32)
        for t in reversed(range(steps)):
            alive = work.gamma * (1 - done[t])
            trace = reward[t] + alive * value[t + 1] - value[t] + GAE_LAMBDA * alive * trace
            advantage[t] = trace
        arrays = [obs[:steps], log_prob, advantage, advantage + value[:steps]]
        seen, old, gain, target = (torch.from_numpy(array).flatten(0, 1) for array in arrays)
        taken = torch.cat(actions)
        for _ in range(work.epochs):
            for rows in torch.randperm(steps * count).split(work.batch_size):
                update(seen[rows], taken[rows], old[rows], gain[rows], target[rows])
        obs[0] = obs[steps]
        frame += steps * count
        meter(frame)
