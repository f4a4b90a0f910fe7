"""REINFORCE."""

from functools import partial

import numpy as np
from torch import Tensor

from slm_lab.agent.algorithm.base import Setting, flatten, mean_metrics, scheduled
from slm_lab.agent.algorithm.estimator import monte_carlo_return, standardize
from slm_lab.agent.algorithm.loss import policy_gradient
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.spec import AgentSpec


class Reinforce:
    """REINFORCE (Williams 1992; Sutton & Barto 2018, section 13.3), with an entropy bonus.

    After `training_frequency` whole episodes, one gradient step on

        - policy_loss_coef E[log pi(a_t|s_t) (R_t - b)] - entropy_coef H,   R_t = sum_k gamma^k r_{t+k}

    The returns of the batch are standardised, which makes their mean the baseline b, unless `center_return` is false:
    then they are only divided by their root mean square. The factor gamma^t of the textbook is left out, as is usual.
    With OnPolicyBatchReplay the batch is `training_frequency` vector steps, and a return counts the rewards up to its
    end. With OnPolicyCrossEntropy it is the best of `training_frequency` episodes: the cross-entropy method, but that a
    step still counts by its return; `center_return: false` fits it, as every step of an elite is to be imitated.

    Example:
        "algorithm": {"name": "Reinforce", "gamma": 0.99, "training_frequency": 1, "center_return": true,
                      "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01}}
    """

    logged = ("entropy",)

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        self.net = setting.actor_critic(spec, critic=False)
        self.memory = setting.memory(spec, horizon=algorithm.training_frequency)
        self.hidden = setting.hidden_state(spec, self.net)
        self.entropy_coef = scheduled(algorithm.entropy_coef_spec)
        loss = partial(reinforce_loss, policy_loss_coef=algorithm.policy_loss_coef)
        self.learner = Learner(loss, self.net, [ParameterGroup(self.net.parameters(), spec.net.for_role("actor"))])
        self.modules, self.learners = {"net": self.net}, {"net": self.learner}
        self.generators = {"action": setting.rng("action")}

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:  # noqa: ARG002
        """Sample from the policy; its mode without `explore`."""
        policy = self.net.policy(obs)
        return policy.sample(self.generators["action"]) if explore else policy.mode()

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Learn when the memory has its episodes (or steps) together."""
        return self.memory.ready

    def update(self, frame: int) -> dict[str, float]:
        """Take one gradient step on the batch."""
        batch = self.hidden.recall(self.net, self.memory.sample())
        returns = monte_carlo_return(batch.reward, batch.done, self.spec.gamma)
        weight = standardize(returns) if self.spec.center_return else returns / (returns.square().mean().sqrt() + 1e-8)
        entropy_coef = self.setting.scalar(self.entropy_coef(frame))
        metrics = self.learner.step(*flatten(batch.obs, batch.action, weight), entropy_coef)
        self.learner.decay(frame)
        return mean_metrics([metrics])

    def variables(self, frame: int) -> dict[str, float]:
        """Return entropy_coef."""
        return {"entropy_coef": self.entropy_coef(frame)}


def reinforce_loss(
    net: ActorCritic,
    obs: Tensor | History,
    action: Tensor,
    weight: Tensor,
    entropy_coef: Tensor,
    *,
    policy_loss_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss; obs, action and the weight of every step are [B, ...]."""
    policy = net.policy(obs)
    entropy = policy.entropy().mean()
    loss = policy_loss_coef * policy_gradient(policy.log_prob(action), weight) - entropy_coef * entropy
    return loss, {"entropy": entropy}
