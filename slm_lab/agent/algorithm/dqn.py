"""Deep Q-Networks, from the first to Rainbow."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm.action_value import ActionValue, make_action_value
from slm_lab.agent.algorithm.base import Setting, TargetUpdate, mean_metrics, require_discrete, scheduled
from slm_lab.agent.algorithm.exploration import choose, greedy
from slm_lab.agent.algorithm.loss import make_loss
from slm_lab.agent.net import make_net
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.agent.net.noisy import Noise
from slm_lab.lib.clock import crossed, previous_crossing
from slm_lab.spec import AgentSpec


class DQN:
    """Q-learning with a net and a replay: VanillaDQN, DQN, DoubleDQN, and every part of Rainbow.

    Minimise the loss between Q(s, a) and

        VanillaDQN  r + gamma max_a' Q(s', a')                         (Mnih et al. 2013, arXiv:1312.5602 eq. 3)
        DQN         r + gamma max_a' Q_target(s', a')                  (Mnih et al. 2015, Nature 518)
        DoubleDQN   r + gamma Q_target(s', argmax_a' Q(s', a'))        (van Hasselt et al. 2015, arXiv:1509.06461 eq. 4)

    without the second term where the episode terminated. Every `training_frequency` frames, `training_iter` batches are
    drawn from the replay and each is used for `training_batch_iter` gradient steps. The target net is replaced every
    `update_frequency` frames, or follows by `polyak_coef` (the weight of the online net) after every gradient step.

    The parts of Rainbow (Hessel et al. 2018, arXiv:1710.02298) are switches of their own, and go with each other:

    - DoubleDQN;
    - memory PrioritizedReplay (arXiv:1511.05952): priorities by the TD error, or by the loss of a distribution;
    - net DuelingMLPNet, DuelingConvNet (arXiv:1511.06581);
    - `num_step_returns`: r + gamma r' + … + gamma^n Q(s_n, a_n), shorter where the episode ends;
    - `value_dist_spec` C51 (arXiv:1707.06887), or QR (arXiv:1710.10044) in its place;
    - net.noisy_sigma (arXiv:1706.10295) with action_policy greedy. Each environment acts with noise of its own; a
      gradient step draws it once for the online and once for the target net.

    With a RecurrentNet it is a Deep Recurrent Q-Network (Hausknecht & Stone 2015, arXiv:1507.06527): batches are
    windows of `seq_len` steps that begin anywhere, without a state.

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
        self.memory = setting.memory(spec, num_steps=algorithm.num_step_returns)
        self.value = make_action_value(algorithm.value_dist_spec, make_loss(spec.net.loss_spec), setting.device)
        obs_shape, atoms = setting.obs_space.shape or (), self.value.atoms
        build = partial(make_net, spec.net, obs_shape, [actions * atoms], atoms=atoms)
        self.net = self.target_net = build().to(setting.device)
        self.hidden = setting.hidden_state(spec, self.net)
        self.modules = {"net": self.net}
        if algorithm.name != "VanillaDQN":
            self.target_net = build().to(setting.device).requires_grad_(False)
            self.target_net.load_state_dict(self.net.state_dict())
            self.modules["target_net"] = self.target_net
        self.nets = nn.ModuleDict({"net": self.net, "target_net": self.target_net})
        self.update_target = TargetUpdate(self.target_net, self.net)
        self.noise, self.every_noise = Noise(self.net), Noise(self.nets)
        self.explore_var = scheduled(algorithm.explore_var_spec)
        loss = partial(dqn_loss, value=self.value, double=algorithm.name == "DoubleDQN")
        self.learner = Learner(loss, self.nets, [ParameterGroup(self.net.parameters(), spec.net)])
        self.learners = {"net": self.learner}
        self.generators: dict[str, Any] = {"action": setting.rng("action"), "noise": setting.generator("noise")}

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:
        """Choose by the action policy, with noise in the net; greedily and without noise where not to `explore`."""
        if not explore:
            self.noise.clear()
            return greedy(self.value.q(outputs(self.net, obs, self.value)))
        self.noise.draw(self.generators["noise"], rows=len(obs))
        q = self.value.q(outputs(self.net, obs, self.value))
        return choose(self.spec.action_policy, q, self.explore_var(frame), self.generators["action"])

    def ready(self, frame: int) -> bool:
        """Learn every `training_frequency` frames once `training_start_step` frames are in."""
        return self.setting.time_to_replay(self.spec, self.memory, frame)

    def update(self, frame: int) -> dict[str, float]:
        """Run one training event."""
        metrics = []
        for _ in range(self.spec.training_iter):
            batch = self.hidden.sample(self.memory, frame)
            for _ in range(self.spec.training_batch_iter):
                self.every_noise.draw(self.generators["noise"])
                metrics.append(self.learner.step(*batch[:-1]))
                if self.net_spec.update_type == "polyak":
                    self.update_target(self.net_spec.polyak_coef)
                error = metrics[-1].pop("error")
            self.memory.update_priorities(batch.index, error)
        if self.net_spec.update_type == "replace":
            since = frame - previous_crossing(frame, self.setting.num_envs, self.spec.training_frequency)
            if crossed(frame, since, self.net_spec.update_frequency):
                self.update_target()
        self.learner.decay(frame)
        return mean_metrics(metrics)

    def variables(self, frame: int) -> dict[str, float]:
        """Return explore_var: epsilon or the temperature tau; 0 for greedy."""
        return {"explore_var": self.explore_var(frame)}


def dqn_loss(
    nets: nn.ModuleDict,
    obs: Tensor | History,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_obs: Tensor | History,
    weight: Tensor,
    *,
    value: ActionValue,
    double: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted loss, and how far off each value was; every batch argument is [B, ...]."""
    net = nets["net"]
    out = outputs(net, obs, value)
    with torch.no_grad():
        next_out = outputs(nets["target_net"], next_obs, value)
        next_action = value.q(outputs(net, next_obs, value) if double else next_out).argmax(-1)
        q = value.q(out).mean()
    loss, error = value.loss(pick(out, action), reward, discount, pick(next_out, next_action))
    return (weight * loss).mean(), {"q": q, "error": error}


def outputs(net: nn.Module, obs: Tensor | History | np.ndarray, value: ActionValue) -> Any:
    """Return what the net says of every action, `[B, A, atoms]`."""
    (out,) = net(obs)
    return out.reshape(len(out), -1, value.atoms)


def pick(out: Tensor, action: Tensor) -> Tensor:
    """Return the rows `[B, atoms]` of `out` `[B, A, atoms]` that belong to the actions `[B]`."""
    return out.gather(1, action[:, None, None].expand(-1, 1, out.shape[-1])).squeeze(1)
