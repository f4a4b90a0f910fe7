"""SARSA."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import (
    Setting,
    as_rollout,
    flatten,
    mean_metrics,
    parts,
    require_discrete,
    scheduled,
    what_follows,
)
from slm_lab.agent.algorithm.estimator import successor_value, td_target
from slm_lab.agent.algorithm.exploration import choose, greedy, probabilities
from slm_lab.agent.algorithm.loss import LossFn, make_loss, q_loss
from slm_lab.agent.memory import RolloutBatch
from slm_lab.agent.net import Net, make_net
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.agent.net.noisy import Noise
from slm_lab.spec import AgentSpec


class SARSA:
    """SARSA (Rummery & Niranjan 1994; Sutton & Barto 2018, section 6.4): values of the policy that acts.

    After every `training_frequency` vector steps, one gradient step on the loss between Q(s, a) and

        r + gamma Q(s', a'),   a' the action that was truly taken in s'                                  (eq. 6.7)

    without the second term where the episode terminated. Where s' is known and no action was taken in it (the last
    observation of a truncated episode, and what follows the last row of the batch), the value of the policy stands in,
    sum_a' pi(a'|s') Q(s', a'), which is what Q(s', a') is on average (Expected SARSA, eq. 6.9). So every row counts,
    and no target mixes two episodes.

    Example:
        "algorithm": {"name": "SARSA", "action_policy": "epsilon_greedy", "gamma": 0.99, "training_frequency": 8,
                      "explore_var_spec": {"name": "linear_decay", "start_val": 1, "end_val": 0.05, "end_step": 10000}}
    """

    logged = ()

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        actions = require_discrete(setting.action_space, algorithm.name)
        self.memory = setting.memory(spec, horizon=algorithm.training_frequency)
        self.net = make_net(spec.net, setting.obs_space.shape or (), [actions]).to(setting.device)
        self.hidden = setting.hidden_state(spec, self.net)
        self.noise = Noise(self.net)
        self.explore_var = scheduled(algorithm.explore_var_spec)
        loss = partial(sarsa_loss, loss_fn=make_loss(spec.net.loss_spec))
        self.learner = Learner(loss, self.net, [ParameterGroup(self.net.parameters(), spec.net)])
        self.modules, self.learners = {"net": self.net}, {"net": self.learner}
        self.generators: dict[str, Any] = {"action": setting.rng("action"), "noise": setting.generator("noise")}

    def act(self, obs: np.ndarray | History, frame: int, explore: bool = True) -> np.ndarray:
        """Choose by the action policy, with noise in the net; greedily and without noise where not to `explore`."""
        if not explore:
            self.noise.clear()
            return greedy(self.net(obs)[0])
        self.noise.draw(self.generators["noise"], rows=len(obs))
        return choose(self.spec.action_policy, self.net(obs)[0], self.explore_var(frame), self.generators["action"])

    def ready(self, frame: int) -> bool:  # noqa: ARG002
        """Learn when the batch is full."""
        return self.memory.ready

    def update(self, frame: int) -> dict[str, float]:
        """Take one gradient step on the batch."""
        batch = self.hidden.recall(self.net, self.memory.sample())
        self.noise.draw(self.generators["noise"])
        target = self.target(batch, frame)
        metrics = self.learner.step(*flatten(batch.obs, batch.action, target))
        self.learner.decay(frame)
        return mean_metrics([metrics])

    @torch.no_grad()
    def target(self, batch: RolloutBatch, frame: int) -> Tensor:
        """Return the targets, [T, N]."""
        taken = [self.net(obs)[0].gather(-1, action.unsqueeze(-1)) for obs, action in parts(batch.obs, batch.action)]
        taken = as_rollout(torch.cat(taken).squeeze(-1), batch)
        after = self.net(what_follows(batch))[0]
        expected = (probabilities(self.spec.action_policy, after, self.explore_var(frame)) * after).sum(-1)
        num_envs = batch.done.shape[1]
        next_value = successor_value(taken, expected[:num_envs], batch.ended, expected[num_envs:])
        return td_target(batch.reward, next_value, batch.terminated, self.spec.gamma)

    def variables(self, frame: int) -> dict[str, float]:
        """Return explore_var: epsilon or the temperature tau; 0 for greedy."""
        return {"explore_var": self.explore_var(frame)}


def sarsa_loss(
    net: Net, obs: Tensor | History, action: Tensor, target: Tensor, *, loss_fn: LossFn
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss; every batch argument is [B, ...]."""
    (q,) = net(obs)
    return q_loss(q, action, target, loss_fn).mean(), {"q": q.mean()}
