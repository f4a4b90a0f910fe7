"""Soft Actor-Critic."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import Setting, TargetUpdate, critic_group, critic_spec, merged_metrics
from slm_lab.agent.algorithm.estimator import soft_value
from slm_lab.agent.algorithm.loss import LossFn, critics_loss, make_loss, temperature_loss
from slm_lab.agent.algorithm.random import random_actions
from slm_lab.agent.net.learner import Learner
from slm_lab.agent.net.soft_policy import SoftNets
from slm_lab.spec import AgentSpec


class SoftActorCritic:
    """Soft Actor-Critic (Haarnoja et al. 2018, arXiv:1812.05905), also for discrete actions (arXiv:1910.07207).

    Every `training_frequency` frames, `training_iter` times: draw a batch; move twin critics towards

        r + gamma E_a'[Q_target(s', a') - alpha log pi(a'|s')]                                    (eq. 2, 3, 5)

    without the second term where the episode terminated; and, every `policy_delay` times, the policy down

        E_a[alpha log pi(a|s) - Q(s, a)]                                                          (eq. 7, 9)

    and log alpha down log alpha (H - target entropy), H the entropy of the policy (eq. 18, where it is alpha). The
    target critics follow by `polyak_coef` after every step. Q is the lower of the two critics where actions are
    sampled, and their mean where the expectation over them is exact (see `soft_value`). Before `training_start_step`
    all actions are random.

    `SoftPolicy` says what the expectations are: a sample of tanh of a Gaussian (with the log standard deviation in
    [-5, 2]); exact over discrete actions (eq. 10 to 12 of Christodoulou 2019, arXiv:1910.07207); or a sample of them by
    GumbelSoftmax. The target entropy is -|A| for |A| dimensions, and `target_entropy_ratio` log |A| for |A| discrete
    actions, where Christodoulou has 0.98: with few actions that is as good as random. log alpha is kept in
    [log_alpha_min, log_alpha_max], which the papers do not do.

    With `num_step_returns` n, the target is r + gamma r' + … + gamma^n E[Q_target - alpha log pi], shorter where the
    episode ends: rewards are known sooner, by steps that an older policy chose, and without the entropy of those steps.

    Example:
        "algorithm": {"name": "SoftActorCritic", "gamma": 0.99, "training_frequency": 4, "training_iter": 1,
                      "training_start_step": 1000}
    """

    logged = ("entropy", "alpha")

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm, net_spec = spec.algorithm, critic_spec(spec)
        self.spec, self.setting = algorithm, setting
        self.memory = setting.memory(spec, num_steps=algorithm.num_step_returns)
        nets = SoftNets(spec, net_spec, setting.obs_space, setting.action_space, targets=True)
        self.nets = nets.to(setting.device)
        self.modules, self.polyak_coef = dict(nets.named_children()), net_spec.polyak_coef
        self.update_target = TargetUpdate(nets.target_critics, nets.critics)
        critic_loss = partial(sac_critic_loss, loss_fn=make_loss(net_spec.loss_spec))
        self.critic_learner = Learner(critic_loss, nets, [critic_group(nets.critics, spec)])
        policy_loss = partial(soft_policy_loss, target_entropy=nets.target_entropy)
        self.policy_learner = Learner(policy_loss, nets, nets.policy_groups(spec))
        self.learners = {"policy": self.policy_learner, "critics": self.critic_learner}
        self.generators: dict[str, Any] = {"action": setting.rng("action"), "noise": setting.generator("noise")}

    def act(self, obs: np.ndarray, frame: int, explore: bool = True) -> np.ndarray:
        """Sample from the policy; its mode without `explore`."""
        if explore and frame < self.spec.training_start_step:
            return random_actions(self.setting.action_space, len(obs), self.generators["action"])
        return self.nets.policy.act(obs, self.generators["action"] if explore else None)

    def ready(self, frame: int) -> bool:
        """Learn every `training_frequency` frames once `training_start_step` frames are in."""
        return self.setting.time_to_replay(self.spec, self.memory, frame)

    def update(self, frame: int) -> dict[str, float]:
        """Run one training event."""
        critic_metrics, policy_metrics = [], []
        for _ in range(self.spec.training_iter or self.setting.num_envs):
            batch = self.memory.sample(frame=frame)
            noise, next_noise = self.nets.policy.noise(2 * len(batch.index), self.generators["noise"]).chunk(2)
            row = self.critic_learner.step(*batch[:-1], next_noise)
            self.memory.update_priorities(batch.index, row.pop("error"))
            critic_metrics.append(row)
            if self.critic_learner.opt_steps % self.spec.policy_delay == 0:
                policy_metrics.append(self.policy_learner.step(batch.obs, noise))
                self.nets.temperature.clamp()
            self.update_target(self.polyak_coef)
        for learner in self.learners.values():
            learner.decay(frame)
        return merged_metrics(critic_metrics, policy_metrics)

    def variables(self, frame: int) -> dict[str, float]:  # noqa: ARG002
        """Schedule nothing."""
        return {}


def sac_critic_loss(
    nets: SoftNets,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_obs: Tensor,
    weight: Tensor,
    next_noise: Tensor,
    *,
    loss_fn: LossFn,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the critics, eq. 5; every batch argument is [B, ...]."""
    with torch.no_grad():
        next_action, prob, log_prob = nets.policy(next_obs, next_noise)
        next_q = nets.target_critics(next_obs, next_action)
        target = reward + discount * soft_value(next_q, prob, log_prob, nets.temperature())
    taken, share = nets.policy.taken(action)
    q = (nets.critics(obs, taken) * share).sum(-1)
    error = (q.detach() - target).abs().mean(0)
    return critics_loss(q, target, weight, loss_fn), {"q": q.mean(), "error": error}


def soft_policy_loss(
    nets: SoftNets, obs: Tensor, noise: Tensor, *, target_entropy: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the policy, eq. 9, and that of the temperature, eq. 18; obs and noise are [B, ...]."""
    action, prob, log_prob = nets.policy(obs, noise)
    alpha = nets.temperature()
    policy_loss = -soft_value(nets.critics(obs, action), prob, log_prob, alpha).mean()
    entropy = -(prob * log_prob).sum(-1).mean()
    loss = policy_loss + temperature_loss(nets.temperature.log_alpha, entropy, target_entropy)
    return loss, {"policy_loss": policy_loss, "entropy": entropy, "alpha": alpha}
