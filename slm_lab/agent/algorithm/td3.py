"""Twin Delayed Deep Deterministic policy gradient."""

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm.base import Setting, TargetUpdate, critic_group, critic_spec, merged_metrics
from slm_lab.agent.algorithm.estimator import lowest
from slm_lab.agent.algorithm.loss import LossFn, critics_loss, make_loss
from slm_lab.agent.algorithm.random import random_actions
from slm_lab.agent.net import make_net
from slm_lab.agent.net.critics import Critics
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.agent.net.soft_policy import bounded_width
from slm_lab.spec import AgentSpec, NetSpec


class TD3:
    """Twin Delayed Deep Deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477, Algorithm 1).

    For continuous actions in [-1, 1], pi = tanh of the net. Every `training_frequency` frames, `training_iter` times:
    draw a batch; move twin critics towards

        r + gamma min_i Q_target_i(s', clip(pi_target(s') + clip(eps, -noise_clip, noise_clip), -1, 1))    (eq. 14)
        eps ~ N(0, target_noise)

    without the second term where the episode terminated; and, every `policy_delay` times, the policy up Q_1(s, pi(s)),
    after which all target nets follow by the `polyak_coef` of the critics' net spec. Acting adds noise of deviation
    `exploration_noise`; before `training_start_step` all actions are random. With `num_step_returns` n, which the paper
    does not have, the target is r + gamma r' + … + gamma^n min Q_target, shorter where the episode ends.

    Example:
        "algorithm": {"name": "TD3", "gamma": 0.99, "training_frequency": 4, "training_iter": 1,
                      "training_start_step": 1000, "policy_delay": 2, "exploration_noise": 0.1}
    """

    logged = ()

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm, actor_spec, net_spec = spec.algorithm, spec.net.for_role("actor"), critic_spec(spec)
        self.spec, self.setting = algorithm, setting
        self.memory = setting.memory(spec, num_steps=algorithm.num_step_returns)
        nets = TD3Nets(actor_spec, net_spec, setting.obs_space.shape or (), bounded_width(setting.action_space))
        self.nets = nets.to(setting.device)
        self.modules, self.polyak_coef = dict(nets.named_children()), net_spec.polyak_coef
        pairs = ((nets.target_critics, nets.critics), (nets.target_policy, nets.policy))
        self.target_updates = [TargetUpdate(target, source) for target, source in pairs]
        critic_loss = partial(
            td3_critic_loss,
            loss_fn=make_loss(net_spec.loss_spec),
            target_noise=algorithm.target_noise,
            noise_clip=algorithm.noise_clip,
        )
        self.critic_learner = Learner(critic_loss, nets, [critic_group(nets.critics, spec)])
        self.policy_learner = Learner(td3_policy_loss, nets, [ParameterGroup(nets.policy.parameters(), actor_spec)])
        self.learners = {"policy": self.policy_learner, "critics": self.critic_learner}
        self.generators: dict[str, Any] = {"action": setting.rng("action"), "noise": setting.generator("noise")}

    def act(self, obs: np.ndarray, frame: int, explore: bool = True) -> np.ndarray:
        """Add noise to the policy's actions; none without `explore`."""
        if explore and frame < self.spec.training_start_step:
            return random_actions(self.setting.action_space, len(obs), self.generators["action"])
        action = self.nets.policy.act(obs)
        if not explore:
            return action
        noise = self.generators["action"].standard_normal(action.shape, np.float32)
        return (action + self.spec.exploration_noise * noise).clip(-1, 1)

    def ready(self, frame: int) -> bool:
        """Learn every `training_frequency` frames once `training_start_step` frames are in."""
        return self.setting.time_to_replay(self.spec, self.memory, frame)

    def update(self, frame: int) -> dict[str, float]:
        """Run one training event."""
        critic_metrics, policy_metrics = [], []
        for _ in range(self.spec.training_iter or self.setting.num_envs):
            batch = self.memory.sample(frame=frame)
            noise = torch.empty(batch.action.shape, device=self.setting.device).normal_(
                generator=self.generators["noise"]
            )
            row = self.critic_learner.step(*batch[:-1], noise)
            self.memory.update_priorities(batch.index, row.pop("error"))
            critic_metrics.append(row)
            if self.critic_learner.opt_steps % self.spec.policy_delay == 0:
                policy_metrics.append(self.policy_learner.step(batch.obs))
                for update_target in self.target_updates:
                    update_target(self.polyak_coef)
        for learner in self.learners.values():
            learner.decay(frame)
        return merged_metrics(critic_metrics, policy_metrics)

    def variables(self, frame: int) -> dict[str, float]:  # noqa: ARG002
        """Schedule nothing."""
        return {}


class DeterministicPolicy(nn.Module):
    """One action in [-1, 1] for each observation: tanh of a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Tensor) -> Tensor:
        """Return actions `[B, k]` for observations `[B, *obs]`."""
        return self.net(obs)[0].tanh()

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return the same of arrays."""
        return np.tanh(self.net(obs)[0])


class TD3Nets(nn.Module):
    """Policy and twin critics, by the net specs of each, and target nets, which begin as they do."""

    def __init__(self, actor_spec: NetSpec, critic_spec: NetSpec, obs_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.policy = DeterministicPolicy(make_net(actor_spec, obs_shape, [width], [actor_spec.actor_init_std]))
        self.critics = Critics(critic_spec, obs_shape, width)
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)


def td3_critic_loss(
    nets: TD3Nets,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_obs: Tensor,
    weight: Tensor,
    noise: Tensor,
    *,
    loss_fn: LossFn,
    target_noise: float,
    noise_clip: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the critics; every batch argument is [B, ...]."""
    with torch.no_grad():
        smoothing = (target_noise * noise).clamp(-noise_clip, noise_clip)
        next_action = (nets.target_policy(next_obs) + smoothing).clamp(-1, 1)
        next_q = nets.target_critics(next_obs, next_action)
        target = reward + discount * lowest(next_q).squeeze(-1)
    q = nets.critics(obs, action).squeeze(-1)
    error = (q.detach() - target).abs().mean(0)
    return critics_loss(q, target, weight, loss_fn), {"q": q.mean(), "error": error}


def td3_policy_loss(nets: TD3Nets, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return minus the first critic's value of the policy's actions; obs is [B, ...]."""
    loss = -nets.critics(obs, nets.policy(obs))[0].mean()
    return loss, {"policy_loss": loss}
