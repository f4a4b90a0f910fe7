"""Proximal Policy Optimization."""

from functools import partial

import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import (
    Setting,
    actor_critic_groups,
    flatten,
    mean_metrics,
    scheduled,
    values_and_log_probs,
)
from slm_lab.agent.algorithm.estimator import gae, standardize
from slm_lab.agent.algorithm.loss import LossFn, clipped_surrogate, make_loss, value_loss
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.spec import AgentSpec


class PPO:
    """Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347).

    Collect T steps of N environments; then for K epochs over shuffled minibatches, maximise (eq. 9)

        E[ L_CLIP - c1 L_VF + c2 H ]

        L_CLIP = min(r A, clip(r, 1 - eps, 1 + eps) A),   r = pi(a|s) / pi_old(a|s)                        (eq. 7)

    with advantages by GAE(gamma, lam) (arXiv:1506.02438 eq. 16), standardised in every minibatch.

    The values and log-probabilities of the old policy are computed in one pass after the rollout, under the very
    parameters that acted. A time limit cuts the trace but not the value: V of the true last observation stands in.

    Example:
        "algorithm": {"name": "PPO", "gamma": 0.99, "lam": 0.95, "time_horizon": 128, "minibatch_size": 256,
                      "training_epoch": 4, "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
                      "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01}, "val_loss_coef": 0.5}
    """

    logged = ("entropy",)

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        self.net = setting.actor_critic(spec)
        self.memory = setting.memory(spec, horizon=algorithm.time_horizon)
        self.clip_eps = scheduled(algorithm.clip_eps_spec)
        self.entropy_coef = scheduled(algorithm.entropy_coef_spec)
        loss = partial(
            ppo_loss,
            value_loss_fn=make_loss(spec.net.loss_spec),
            val_loss_coef=algorithm.val_loss_coef,
            clip_value=algorithm.clip_vloss,
        )
        self.learner = setting.learner(loss, self.net, actor_critic_groups(self.net, spec.net))
        self.modules, self.learners = {"net": self.net}, {"net": self.learner}
        self.generators = {"action": setting.generator("action"), "shuffle": setting.generator("shuffle")}

    def act(self, obs: Tensor, frame: int, explore: bool = True) -> Tensor:  # noqa: ARG002
        """Sample from the policy; its mode without `explore`."""
        policy = self.net.policy(obs)
        return policy.sample(self.generators["action"]) if explore else policy.mode()

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Learn when the rollout is full."""
        return self.memory.ready

    def update(self, frame: int) -> dict[str, float]:
        """Run `training_epoch` epochs over the rollout."""
        batch = self.memory.sample()
        value, next_value, log_prob = values_and_log_probs(self.net, batch)
        advantage = gae(batch.reward, value, next_value, batch.terminated, batch.done, self.spec.gamma, self.spec.lam)
        data = flatten(batch.obs, batch.action, log_prob, advantage, advantage + value, value)
        clip_eps = self.setting.scalar(self.clip_eps(frame))
        entropy_coef = self.setting.scalar(self.entropy_coef(frame))
        metrics = []
        for _ in range(self.spec.training_epoch):
            order = torch.randperm(len(data[0]), generator=self.generators["shuffle"], device=self.setting.device)
            minibatches = zip(*(tensor[order].split(self.spec.minibatch_size) for tensor in data), strict=True)
            metrics += [self.learner.step(*minibatch, clip_eps, entropy_coef) for minibatch in minibatches]
        self.learner.decay(frame)
        return mean_metrics(metrics)

    def variables(self, frame: int) -> dict[str, float]:
        """Return entropy_coef and clip_eps."""
        return {"entropy_coef": self.entropy_coef(frame), "clip_eps": self.clip_eps(frame)}


def ppo_loss(
    net: ActorCritic,
    obs: Tensor,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    old_value: Tensor,
    clip_eps: Tensor,
    entropy_coef: Tensor,
    *,
    value_loss_fn: LossFn,
    val_loss_coef: float,
    clip_value: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of eq. 9, negated to be minimised; every batch argument is [B, ...]."""
    policy, value = net.policy_value(obs)
    log_prob, entropy = policy.log_prob(action), policy.entropy().mean()
    policy_loss = clipped_surrogate(log_prob, old_log_prob, standardize(advantage), clip_eps)
    critic_loss = value_loss(value, target, value_loss_fn, old_value if clip_value else None, clip_eps)
    loss = policy_loss + val_loss_coef * critic_loss - entropy_coef * entropy
    return loss, {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}
