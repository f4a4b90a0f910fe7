"""CrossQ."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import Setting, critic_group, critic_spec, merged_metrics
from slm_lab.agent.algorithm.estimator import soft_value
from slm_lab.agent.algorithm.loss import LossFn, critics_loss, make_loss
from slm_lab.agent.algorithm.random import random_actions
from slm_lab.agent.algorithm.sac import soft_policy_loss
from slm_lab.agent.net.learner import Learner
from slm_lab.agent.net.soft_policy import SoftNets
from slm_lab.spec import AgentSpec


class CrossQ:
    """CrossQ (Bhatt et al. 2024, arXiv:1902.05605): Soft Actor-Critic without target nets, with normalised critics.

    As `SoftActorCritic`, but (s, a) and (s', a') go through the critics as one batch (Figure 2), so that the batch
    renormalisation in them sees the mixture of both; the second half gives the target, without gradient:

        Q(s, a), q' = Q([s, s'], [a, a']),   target = r + gamma (q' - alpha log pi(a'|s'))

    The critics use and update the statistics of the batch in their own gradient step only; for the policy they are as
    the running statistics make them. The policy learns every third step of the critics (`policy_delay`).

    The norms stand before the activations and not at the input, and are as the critics' net spec says
    (`batch_renorm` of `critic_net`, or `critic_batch_renorm` of `net`); the paper's critics are 2048 wide, and its
    Adam has betas 0.5, 0.999: all of these are keys of the spec. Discrete actions and `num_step_returns`,
    which the paper does not have, are as in `SoftActorCritic`.

    Example:
        "algorithm": {"name": "CrossQ", "gamma": 0.99, "training_frequency": 4, "training_iter": 1,
                      "training_start_step": 1000, "policy_delay": 3}
        "critic_net": {"type": "MLPNet", "hid_layers": [256, 256], "batch_renorm": true, ...}
    """

    logged = ("entropy", "alpha")

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm, net_spec = spec.algorithm, critic_spec(spec)
        self.spec, self.setting = algorithm, setting
        self.memory = setting.memory(spec, num_steps=algorithm.num_step_returns)
        nets = SoftNets(spec, net_spec, setting.obs_space, setting.action_space)
        self.nets = nets.to(setting.device)
        self.modules = dict(nets.named_children())
        critic_loss = partial(crossq_critic_loss, loss_fn=make_loss(net_spec.loss_spec))
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
        for learner in self.learners.values():
            learner.decay(frame)
        return merged_metrics(critic_metrics, policy_metrics)

    def variables(self, frame: int) -> dict[str, float]:  # noqa: ARG002
        """Schedule nothing."""
        return {}


def crossq_critic_loss(
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
    """Return the loss of the critics; every batch argument is [B, ...]."""
    with torch.no_grad():
        next_action, prob, log_prob = nets.policy(next_obs, next_noise)
    taken, share = nets.policy.taken(action)
    both = nets.critics(torch.cat([obs, next_obs]), torch.cat([taken, next_action]))
    q, next_q = both.chunk(2, dim=1)
    target = reward + discount * soft_value(next_q.detach(), prob, log_prob, nets.temperature())
    q = (q * share).sum(-1)
    error = (q.detach() - target).abs().mean(0)
    return critics_loss(q, target, weight, loss_fn), {"q": q.mean(), "error": error}
