"""Soft Actor-Critic in one file (Haarnoja et al. 2018, arXiv:1812.05905): see the package for the modes."""

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from bench.meter import Meter
from bench.scripts.parts import Buffer, make_net, make_step
from bench.works import SAC_POLYAK, Work

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class Critics(nn.Module):
    """Two action values."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.one, self.two = make_net(sizes, 1), make_net(sizes, 1)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, [B] each."""
        pair = torch.cat([obs, action], -1)
        return self.one(pair).squeeze(-1), self.two(pair).squeeze(-1)


class Policy(nn.Module):
    """The policy's net, and the logarithm of the weight of its entropy."""

    def __init__(self, sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.net = make_net(sizes, outputs)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return squashed actions [B, A] in (-1, 1), their log-probabilities [B], and log alpha."""
        mean, log_std = self.net(obs).chunk(2, -1)
        policy = Normal(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp())
        raw = policy.rsample()
        action = raw.tanh()
        log_prob = (policy.log_prob(raw) - torch.log(1 - action.square() + 1e-6)).sum(-1)
        return action, log_prob, self.log_alpha


class Nets:
    """All that is trained, and the critics' targets."""

    def __init__(self, work: Work, obs_dim: int, actions: int) -> None:
        self.gamma, self.target_entropy = work.gamma, -float(actions)
        self.policy = Policy((obs_dim, *work.hidden), 2 * actions)
        self.critics = Critics((obs_dim + actions, *work.hidden))
        self.target = deepcopy(self.critics).requires_grad_(False)
        self.pairs = [list(net.parameters()) for net in (self.target, self.critics)]

    def critic_loss(self, critics: Any, *batch: Tensor) -> Tensor:
        """Return the loss of the critics on a batch of `Buffer.sample`."""
        obs, next_obs, action, reward, alive = batch
        with torch.no_grad():
            next_action, log_prob, log_alpha = self.policy(next_obs)
            value = torch.min(*self.target(next_obs, next_action)) - log_alpha.exp() * log_prob
            wanted = reward + self.gamma * alive * value
        one, two = critics(obs, action)
        return (one - wanted).square().mean() + (two - wanted).square().mean()

    def policy_loss(self, policy: Any, obs: Tensor, *_: Tensor) -> Tensor:
        """Return the loss of the policy and that of the temperature."""
        action, log_prob, log_alpha = policy(obs)
        loss = (log_alpha.exp().detach() * log_prob - torch.min(*self.critics(obs, action))).mean()
        return loss - (log_alpha * (log_prob.detach() + self.target_entropy)).mean()


def run(work: Work, meter: Meter, threads: int, mode: str) -> None:
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    Distribution.set_default_validate_args(False)
    env = gym.make(work.env, disable_env_checker=True)
    obs_dim, actions = env.observation_space.shape[0], env.action_space.shape[0]
    nets = Nets(work, obs_dim, actions)
    pairs = ((nets.critics, nets.critic_loss), (nets.policy, nets.policy_loss))
    steps = [make_step(net, loss, mode, work.lr) for net, loss in pairs]
    act = torch.compile(nets.policy) if mode == "compiled" else nets.policy
    buffer = Buffer(work.buffer_size, obs_dim, (actions,), np.float32)
    obs, _ = env.reset(seed=0)
    frame = 0
    while True:
        if frame < work.learning_starts:
            action = buffer.random.uniform(-1, 1, actions).astype(np.float32)
        else:
            with torch.inference_mode():
                action = act(torch.from_numpy(obs.astype(np.float32)))[0].numpy()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        buffer.add(obs, next_obs, action, reward, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs
        frame += 1
        if frame >= work.learning_starts:
            batch = buffer.sample(work.batch_size)
            for step in steps:
                step(*batch)
            with torch.no_grad():
                torch._foreach_lerp_(*nets.pairs, SAC_POLYAK)
            meter(frame)
