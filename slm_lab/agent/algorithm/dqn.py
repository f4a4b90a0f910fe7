"""Deep Q-Networks, plain and double."""

from functools import partial

import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm.base import Setting, mean_metrics, require_discrete, scheduled, update_target
from slm_lab.agent.algorithm.exploration import boltzmann, epsilon_greedy, greedy
from slm_lab.agent.algorithm.loss import LossFn, make_loss, q_loss
from slm_lab.agent.net import make_net
from slm_lab.agent.net.learner import ParameterGroup
from slm_lab.lib.clock import crossed, previous_crossing
from slm_lab.spec import AgentSpec


class DQN:
    """Deep Q-Network (Mnih et al. 2015, Nature 518) and Double DQN (van Hasselt et al. 2015, arXiv:1509.06461).

    Minimise the loss between Q(s, a) and

        DQN        r + gamma max_a' Q_target(s', a')
        DoubleDQN  r + gamma Q_target(s', argmax_a' Q(s', a'))      (eq. 4 of the second paper)

    without the second term where the episode terminated. Every `training_frequency` frames, `training_iter` batches are
    drawn from the replay and each is used for `training_batch_iter` gradient steps. The target net is replaced every
    `update_frequency` frames, or follows by `polyak_coef` (the weight of the online net) after every gradient step.

    Example:
        "algorithm": {"name": "DQN", "action_policy": "epsilon_greedy", "gamma": 0.99, "training_frequency": 4,
                      "explore_var_spec": {"name": "linear_decay", "start_val": 1, "end_val": 0.05, "end_step": 10000},
                      "training_start_step": 1000, "training_iter": 1, "training_batch_iter": 1}
    """

    logged = ()

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.net_spec, self.setting = algorithm, spec.net, setting
        actions = require_discrete(setting.action_space, algorithm.name)
        self.memory = setting.memory(spec)
        build = partial(make_net, spec.net, setting.obs_space.shape or (), [actions])
        self.net, self.target_net = build().to(setting.device), build().to(setting.device).requires_grad_(False)
        self.target_net.load_state_dict(self.net.state_dict())
        self.nets = nn.ModuleDict({"net": self.net, "target_net": self.target_net})
        self.action_policy = {"epsilon_greedy": epsilon_greedy, "boltzmann": boltzmann}[algorithm.action_policy]
        self.explore_var = scheduled(algorithm.explore_var_spec)
        loss = partial(
            dqn_loss,
            loss_fn=make_loss(spec.net.loss_spec),
            double=algorithm.name == "DoubleDQN",
        )
        self.learner = setting.learner(loss, self.nets, [ParameterGroup(self.net.parameters(), spec.net)])
        self.modules = {"net": self.net, "target_net": self.target_net}
        self.learners, self.generators = {"net": self.learner}, {"action": setting.generator("action")}

    def act(self, obs: Tensor, frame: int, explore: bool = True) -> Tensor:
        """Choose by the action policy; greedily without `explore`."""
        (q,) = self.net(obs)
        if not explore:
            return greedy(q)
        return self.action_policy(q, self.explore_var(frame), self.generators["action"])

    def ready(self, frame: int) -> bool:
        """Learn every `training_frequency` frames once `training_start_step` frames are in."""
        due = crossed(frame, self.setting.num_envs, self.spec.training_frequency)
        return due and frame >= self.spec.training_start_step and self.memory.size > 0

    def update(self, frame: int) -> dict[str, float]:
        """Run one training event."""
        metrics = []
        for _ in range(self.spec.training_iter):
            batch = self.memory.sample(frame=frame)
            for _ in range(self.spec.training_batch_iter):
                row = self.learner.step(*batch[:-1])
                error = row.pop("error")
                metrics.append(row)
                if self.net_spec.update_type == "polyak":
                    update_target(self.target_net, self.net, self.net_spec.polyak_coef)
            self.memory.update_priorities(batch.index, error)
        if self.net_spec.update_type == "replace":
            since = frame - previous_crossing(frame, self.setting.num_envs, self.spec.training_frequency)
            if crossed(frame, since, self.net_spec.update_frequency):
                update_target(self.target_net, self.net, 1.0)
        self.learner.decay(frame)
        return mean_metrics(metrics)

    def variables(self, frame: int) -> dict[str, float]:
        """Return explore_var: epsilon or the temperature tau."""
        return {"explore_var": self.explore_var(frame)}


def dqn_loss(
    nets: nn.ModuleDict,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_obs: Tensor,
    weight: Tensor,
    *,
    loss_fn: LossFn,
    double: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the temporal-difference loss; every batch argument is [B, ...]."""
    (q,) = nets["net"](obs)
    with torch.no_grad():
        (next_q,) = nets["target_net"](next_obs)
        best = nets["net"](next_obs)[0].argmax(-1) if double else next_q.argmax(-1)
        target = reward + discount * next_q.gather(-1, best.unsqueeze(-1)).squeeze(-1)
        error = q.gather(-1, action.unsqueeze(-1)).squeeze(-1) - target
    return (weight * q_loss(q, action, target, loss_fn)).mean(), {"q": q.mean(), "error": error}
