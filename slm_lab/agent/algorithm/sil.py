"""Self-Imitation Learning."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from slm_lab.agent.algorithm.actor_critic import ActorCritic
from slm_lab.agent.algorithm.base import Setting, mean_metrics
from slm_lab.agent.algorithm.estimator import nstep_return
from slm_lab.agent.algorithm.ppo import PPO
from slm_lab.agent.memory.rollout import RolloutBatch
from slm_lab.agent.memory.self_imitation import SelfImitationMemory
from slm_lab.agent.net.actor_critic import ActorCritic as ActorCriticNet
from slm_lab.agent.net.history import History
from slm_lab.agent.net.learner import Learner
from slm_lab.env import Step
from slm_lab.spec import AgentSpec, schema


class SIL:
    """Self-Imitation Learning (Oh et al. 2018, arXiv:1806.05635, Algorithm 1).

    A2C (`SIL`) or PPO (`PPOSIL`) as they are, and after each of their updates `training_iter` batches of past steps,
    each used for `training_batch_iter` gradient steps on

        sil_policy_loss_coef E[-log pi(a|s) (R - V(s))+] + sil_val_loss_coef E[((R - V(s))+)^2 / 2]        (eq. 1 to 3)

    where (x)+ = max(x, 0): what turned out better than expected is done again, and what did not teaches nothing. Both
    losses go through one optimiser.

    R is the discounted return along the whole episode, known when it ends. A time limit is not an end: there, R goes on
    with V of the true last observation as it is at that moment (the paper's games have none). With PrioritizedReplay
    steps are drawn by their (R - V)+, as in the paper; its exponents there are alpha 0.6 and beta 0.1. Episodes under
    way are held in full: with images and very long episodes that takes memory. A recurrent net reads windows of the
    past from an empty state on (see `HiddenState.sample`).

    Example:
        "algorithm": {"name": "SIL", "gamma": 0.99, "num_step_returns": 5, "val_loss_coef": 0.5,
                      "sil_policy_loss_coef": 1.0, "sil_val_loss_coef": 0.01, "training_iter": 4},
        "memory": {"name": "OnPolicyBatchReplay",
                   "sil_replay": {"name": "PrioritizedReplay", "batch_size": 512, "max_size": 100000}}
    """

    def __init__(self, spec: AgentSpec, setting: Setting) -> None:
        algorithm = spec.algorithm
        self.spec, self.setting = algorithm, setting
        self.on_policy = {"SIL": ActorCritic, "PPOSIL": PPO}[algorithm.name](spec, setting)
        self.net, self.hidden = self.on_policy.net, self.on_policy.hidden
        here, one = replace(setting, device=torch.device("cpu")), replace(setting, num_envs=1)
        of_episodes = spec.model_copy(update={"memory": schema.OnPolicyReplay()})
        of_past = spec.model_copy(update={"memory": spec.memory.sil_replay})
        self.memory = SelfImitationMemory(
            self.on_policy.memory, here.memory(of_episodes, horizon=1), one.memory(of_past)
        )
        self.of_episodes, self.of_past = (one.hidden_state(part, self.net) for part in (of_episodes, of_past))
        loss = partial(sil_loss, policy_coef=algorithm.sil_policy_loss_coef, value_coef=algorithm.sil_val_loss_coef)
        # the optimisers are those of the other half, which a checkpoint saves once
        self.learner = Learner(loss, self.net, self.on_policy.learner.groups)
        self.modules, self.learners = self.on_policy.modules, self.on_policy.learners
        self.generators = self.on_policy.generators
        self.logged: tuple[str, ...] = (*self.on_policy.logged, "sil_gain")
        self.act, self.ready, self.variables = self.on_policy.act, self.on_policy.ready, self.on_policy.variables

    def update(self, frame: int) -> dict[str, float]:
        """Learn on policy, then from the past."""
        metrics = self.on_policy.update(frame)
        episodes, past = self.memory.finished(), self.memory.past
        if episodes is not None:
            for row in transitions(episodes, self.returns(episodes)):
                past.add(*row)
        if past.size < past.batch_size:
            return metrics
        rows = []
        for _ in range(self.spec.training_iter):
            batch = self.of_past.sample(past, frame)
            for _ in range(self.spec.training_batch_iter):
                row = self.learner.step(batch.obs, batch.action, batch.reward, batch.weight)
                error = row.pop("error")
                rows.append(row)
            past.update_priorities(batch.index, error)
        self.on_policy.learner.opt_steps += self.learner.opt_steps
        self.learner.opt_steps = 0
        return metrics | {f"sil_{name}": value for name, value in mean_metrics(rows).items()}

    @torch.no_grad()
    def returns(self, episodes: RolloutBatch) -> Tensor:
        """Return the discounted return of every step of whole episodes, [T, 1] on the CPU."""
        device = self.setting.device
        if self.hidden.size:  # what was seen before the last observations matters as well
            episodes_there = RolloutBatch(*(part.to(device) for part in episodes))
            final_obs = self.of_episodes.recall(self.net, episodes_there).final_obs
        else:
            final_obs = episodes.final_obs.to(device)
        final_value = self.net.value(final_obs).cpu()
        next_value = torch.zeros_like(episodes.reward)
        next_value[episodes.ended, 0] = final_value
        return nstep_return(episodes.reward, next_value, episodes.terminated, episodes.done, self.spec.gamma)


def transitions(episodes: RolloutBatch, returns: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray, Step]]:
    """Yield (obs, action, step) of whole episodes [T, 1, ...], one after another, with returns [T, 1] as rewards."""
    obs, action, terminated = episodes.obs.numpy(), episodes.action.numpy(), episodes.terminated.numpy()
    truncated = episodes.done.numpy() & ~terminated
    next_obs = np.roll(obs, -1, axis=0)
    next_obs[episodes.ended.numpy(), 0] = episodes.final_obs.numpy()
    for t in range(len(obs)):
        yield obs[t], action[t], Step(next_obs[t], returns.numpy()[t], terminated[t], truncated[t], next_obs[t])


def sil_loss(
    net: ActorCriticNet,
    obs: Tensor | History,
    action: Tensor,
    returns: Tensor,
    weight: Tensor,
    *,
    policy_coef: float,
    value_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of eq. 1; every batch argument is [B, ...]."""
    policy, value = net.policy_value(obs)
    gain = (returns - value).clamp_min(0.0)
    policy_loss = -(weight * policy.log_prob(action) * gain.detach()).mean()
    value_loss = (weight * gain.square()).mean() / 2
    metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "gain": gain.mean(), "error": gain}
    return policy_coef * policy_loss + value_coef * value_loss, metrics
