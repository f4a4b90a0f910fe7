"""Advantage Actor-Critic."""

from functools import partial

import numpy as np
from torch import Tensor

from slm_lab.agent.algorithm.base import (
    Setting,
    actor_critic_groups,
    flatten,
    mean_metrics,
    scheduled,
    values,
)
from slm_lab.agent.algorithm.estimator import gae, monte_carlo_return, nstep_return, standardize
from slm_lab.agent.algorithm.loss import LossFn, make_loss, policy_gradient, value_loss
from slm_lab.agent.algorithm.scale import RunningStd
from slm_lab.agent.memory import RolloutBatch
from slm_lab.agent.net.actor_critic import ActorCritic as ActorCriticNet
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner
from slm_lab.spec import AgentSpec


class ActorCritic:
    """Advantage Actor-Critic, synchronous (Mnih et al. 2016, arXiv:1602.01783, Algorithm S3 without the asynchrony).

    After every `training_frequency` vector steps, one gradient step on

        - policy_loss_coef E[log pi(a|s) A] + val_loss_coef E[(V(s) - target)^2] - entropy_coef H

    The advantage is one of three, as the spec says:

    - `lam`: GAE(gamma, lam) (arXiv:1506.02438 eq. 16), target A + V;
    - `num_step_returns`: n-step return R = sum gamma^k r + gamma^n V, A = R - V, target R (the paper's);
    - neither: the discounted sum of what was observed, A = R - V, target R.

    Advantages are standardised over the batch, which makes the step size independent of the scale of the rewards; with
    `normalize_advantages: null` they are not, as in the paper. With `normalize_v_targets` the value loss is of value
    and target divided by the running deviation of the targets (`RunningStd`), so that neither `val_loss_coef` nor a
    shared body depends on it.

    Example:
        "algorithm": {"name": "ActorCritic", "gamma": 0.99, "lam": 0.95, "training_frequency": 32, "val_loss_coef": 0.5,
                      "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01}}
    """

    logged = ("entropy",)

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        self.net = setting.actor_critic(spec)
        self.memory = setting.memory(spec, horizon=algorithm.training_frequency)
        self.hidden = setting.hidden_state(spec, self.net)
        self.entropy_coef = scheduled(algorithm.entropy_coef_spec)
        loss = partial(
            actor_critic_loss,
            value_loss_fn=make_loss(spec.net.loss_spec),
            policy_loss_coef=algorithm.policy_loss_coef,
            val_loss_coef=algorithm.val_loss_coef,
            standardize_advantage=algorithm.normalize_advantages is not None,
        )
        self.learner = Learner(loss, self.net, actor_critic_groups(self.net, spec.net))
        self.value_scale = RunningStd().to(setting.device) if algorithm.normalize_v_targets else None
        self.modules = (
            {"net": self.net} if self.value_scale is None else {"net": self.net, "value_scale": self.value_scale}
        )
        self.learners = {"net": self.learner}
        self.generators = {"action": setting.rng("action")}

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:  # noqa: ARG002
        """Sample from the policy; its mode without `explore`."""
        policy = self.net.policy(obs)
        return policy.sample(self.generators["action"]) if explore else policy.mode()

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Learn when the rollout is full."""
        return self.memory.ready

    def update(self, frame: int) -> dict[str, float]:
        """Take one gradient step on the rollout."""
        batch = self.hidden.recall(self.net, self.memory.sample())
        advantage, target = self.advantage_and_target(batch)
        entropy_coef = self.setting.scalar(self.entropy_coef(frame))
        value_scale = self.setting.scalar(1.0) if self.value_scale is None else self.value_scale.update(target)
        metrics = self.learner.step(*flatten(batch.obs, batch.action, advantage, target), entropy_coef, value_scale)
        self.learner.decay(frame)
        return mean_metrics([metrics])

    def advantage_and_target(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Return advantage and value target, each [T, N]."""
        spec = self.spec
        value, next_value = values(self.net, batch)
        if spec.lam is not None:
            advantage = gae(batch.reward, value, next_value, batch.terminated, batch.done, spec.gamma, spec.lam)
            return advantage, advantage + value
        if spec.num_step_returns is not None:
            target = nstep_return(batch.reward, next_value, batch.terminated, batch.done, spec.gamma)
        else:
            target = monte_carlo_return(batch.reward, batch.done, spec.gamma)
        return target - value, target

    def variables(self, frame: int) -> dict[str, float]:
        """Return entropy_coef."""
        return {"entropy_coef": self.entropy_coef(frame)}


def actor_critic_loss(
    net: ActorCriticNet,
    obs: Tensor | History,
    action: Tensor,
    advantage: Tensor,
    target: Tensor,
    entropy_coef: Tensor,
    value_scale: Tensor,
    *,
    value_loss_fn: LossFn,
    policy_loss_coef: float,
    val_loss_coef: float,
    standardize_advantage: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss; batch arguments are [B, ...], the last two scalars."""
    policy, value = net.policy_value(obs)
    entropy = policy.entropy().mean()
    advantage = standardize(advantage) if standardize_advantage else advantage
    policy_loss = policy_gradient(policy.log_prob(action), advantage)
    critic_loss = value_loss(value / value_scale, target / value_scale, value_loss_fn)
    loss = policy_loss_coef * policy_loss + val_loss_coef * critic_loss - entropy_coef * entropy
    return loss, {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}
