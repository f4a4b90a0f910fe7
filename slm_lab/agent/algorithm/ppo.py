"""Proximal Policy Optimization."""

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from slm_lab.agent.algorithm.base import (
    Setting,
    actor_critic_groups,
    flatten,
    mean_metrics,
    minibatches,
    scheduled,
    values_and_log_probs,
)
from slm_lab.agent.algorithm.estimator import gae, standardize, symexp, symlog
from slm_lab.agent.algorithm.loss import LossFn, approx_kl, clipped_surrogate, make_loss, value_loss
from slm_lab.agent.algorithm.scale import PercentileRange, RunningStd
from slm_lab.agent.memory import RolloutBatch
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner
from slm_lab.spec import AgentSpec


class PPO:
    """Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347).

    Collect T steps of N environments; then for K epochs over shuffled minibatches, maximise (eq. 9)

        E[ L_CLIP - c1 L_VF + c2 H ]

        L_CLIP = min(r A, clip(r, 1 - eps, 1 + eps) A),   r = pi(a|s) / pi_old(a|s)                        (eq. 7)

    with advantages by GAE(gamma, lam) (arXiv:1506.02438 eq. 16), standardised in every minibatch.

    Options, none of them in the paper and all off by default:

    - `clip_vloss`: the value moves no farther than eps from the old one within a rollout (PPO2);
    - `normalize_advantages: "percentile"`: A / max(1, p95 - p5) over rollouts instead (`PercentileRange`);
    - `normalize_v_targets`: value and target are divided by the running deviation of the targets in the value loss, so
      that `val_loss_coef`, the clip of the value and a shared body do not depend on the scale of the rewards;
    - `symlog`: the net predicts symlog(V) (arXiv:2301.04104 eq. 9); in an older version of the lab it did harm;
    - `target_kl`: no further epoch over the rollout once the mean KL of an epoch passes it.

    The values and log-probabilities of the old policy are computed in one pass after the rollout, under the very
    parameters that acted. A time limit cuts the trace but not the value: V of the true last observation stands in.

    Example:
        "algorithm": {"name": "PPO", "gamma": 0.99, "lam": 0.95, "time_horizon": 128, "minibatch_size": 256,
                      "training_epoch": 4, "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
                      "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01}, "val_loss_coef": 0.5}
    """

    logged = ("entropy", "approx_kl")

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        self.net = setting.actor_critic(spec)
        self.memory = setting.memory(spec, horizon=algorithm.time_horizon)
        self.hidden = setting.hidden_state(spec, self.net)
        self.clip_eps = scheduled(algorithm.clip_eps_spec)
        self.entropy_coef = scheduled(algorithm.entropy_coef_spec)
        percentile = algorithm.normalize_advantages == "percentile"
        loss = partial(
            ppo_loss,
            value_loss_fn=make_loss(spec.net.loss_spec),
            val_loss_coef=algorithm.val_loss_coef,
            clip_value=algorithm.clip_vloss,
            standardize_advantage=not percentile,
        )
        self.learner = Learner(loss, self.net, actor_critic_groups(self.net, spec.net))
        # only those that are in use have a state to be saved
        self.advantage_scale = PercentileRange().to(setting.device) if percentile else None
        self.value_scale = RunningStd().to(setting.device) if algorithm.normalize_v_targets else None
        modules = {"net": self.net, "advantage_scale": self.advantage_scale, "value_scale": self.value_scale}
        self.modules = {name: module for name, module in modules.items() if module is not None}
        self.learners = {"net": self.learner}
        self.generators: dict[str, Any] = {"action": setting.rng("action"), "shuffle": setting.generator("shuffle")}

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:  # noqa: ARG002
        """Sample from the policy; its mode without `explore`."""
        policy = self.net.policy(obs)
        return policy.sample(self.generators["action"]) if explore else policy.mode()

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Learn when the rollout is full."""
        return self.memory.ready

    def update(self, frame: int) -> dict[str, float]:
        """Run `training_epoch` epochs over the rollout, fewer where `target_kl` is passed."""
        *data, value_scale = self.prepare(self.hidden.recall(self.net, self.memory.sample()))
        coefs = self.setting.scalar(self.clip_eps(frame)), self.setting.scalar(self.entropy_coef(frame)), value_scale
        metrics = []
        for _ in range(self.spec.training_epoch):
            batches = minibatches(data, self.spec.minibatch_size, self.generators["shuffle"])
            epoch = [self.learner.step(*minibatch, *coefs) for minibatch in batches]
            metrics += epoch
            if self.spec.target_kl is not None and mean_metrics(epoch)["approx_kl"] > self.spec.target_kl:
                break
        self.learner.decay(frame)
        return mean_metrics(metrics)

    def prepare(self, batch: RolloutBatch) -> list[Any]:
        """Return obs, action, log-probability, advantage, value target and value [T*N, ...], and the value's scale."""
        spec = self.spec
        output, next_value, log_prob = values_and_log_probs(self.net, batch)
        value, next_value = (symexp(output), symexp(next_value)) if spec.symlog else (output, next_value)
        advantage = gae(batch.reward, value, next_value, batch.terminated, batch.done, spec.gamma, spec.lam)
        target = symlog(advantage + value) if spec.symlog else advantage + value
        if self.advantage_scale is not None:
            advantage = advantage / self.advantage_scale.update(advantage)
        scale = self.setting.scalar(1.0) if self.value_scale is None else self.value_scale.update(target)
        return [*flatten(batch.obs, batch.action, log_prob, advantage, target, output), scale]

    def variables(self, frame: int) -> dict[str, float]:
        """Return entropy_coef and clip_eps."""
        return {"entropy_coef": self.entropy_coef(frame), "clip_eps": self.clip_eps(frame)}


def ppo_loss(
    net: ActorCritic,
    obs: Tensor | History,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    old_value: Tensor,
    clip_eps: Tensor,
    entropy_coef: Tensor,
    value_scale: Tensor,
    *,
    value_loss_fn: LossFn,
    val_loss_coef: float,
    clip_value: bool,
    standardize_advantage: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of eq. 9, negated to be minimised; batch arguments are [B, ...], the last three scalars."""
    policy, value = net.policy_value(obs)
    log_prob, entropy = policy.log_prob(action), policy.entropy().mean()
    advantage = standardize(advantage) if standardize_advantage else advantage
    policy_loss = clipped_surrogate(log_prob, old_log_prob, advantage, clip_eps)
    value, target, old_value = value / value_scale, target / value_scale, old_value / value_scale
    critic_loss = value_loss(value, target, value_loss_fn, old_value if clip_value else None, clip_eps)
    loss = policy_loss + val_loss_coef * critic_loss - entropy_coef * entropy
    kl = approx_kl(log_prob, old_log_prob)
    return loss, {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy, "approx_kl": kl}
