"""Algorithms on linear nets whose weights are set by hand, and memories that are filled by hand."""

from math import log

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from slm_lab.agent.algorithm import Setting, make_algorithm
from slm_lab.env import Step
from slm_lab.spec import AgentSpec

OBS = Box(-100.0, 100.0, (1,), np.float32)
P, Q = 0.75, 0.25  # probabilities of actions 0 and 1 under the policy of `set_policy`
ENTROPY = -(P * log(P) + Q * log(Q))


def make(algorithm, memory, *, num_envs=1, action_space=None, net=None, critic_net=None):
    """Build an algorithm on a net without hidden layers: outputs are weight * obs + bias."""
    net = {"type": "MLPNet", "hid_layers": [], "optim_spec": {"name": "SGD", "lr": 1.0}, **(net or {})}
    spec = AgentSpec.model_validate({"algorithm": algorithm, "memory": memory, "net": net, "critic_net": critic_net})
    setting = Setting(OBS, action_space or Discrete(2), num_envs, 1, 0, torch.device("cpu"))
    return make_algorithm(spec, setting)


@torch.no_grad()
def set_linear(net, weight, bias, head=0):
    """Set the outputs of one head to weight * obs + bias."""
    net.heads[head].weight[:] = torch.tensor([weight]).T
    net.heads[head].bias[:] = torch.tensor(bias)


def set_policy(algorithm):
    """Probabilities P and Q whatever is observed; V(obs) = obs, if there is a critic."""
    set_linear(algorithm.net.actor, [0.0, 0.0], [log(3.0), 0.0])
    if algorithm.net.has_critic:
        set_linear(algorithm.net.critic, [1.0], [0.0])


def zeros(count):
    """Observations to act on."""
    return np.zeros((count, 1), np.float32)


def add(memory, obs, action, reward, next_obs, terminated=False, truncated=False, final_obs=None):
    """Store one transition of one environment."""
    row = np.array([[next_obs]], np.float32)
    final = row if final_obs is None else np.array([[final_obs]], np.float32)
    flags = np.array([terminated]), np.array([truncated])
    step = Step(row, np.array([reward], np.float32), *flags, final)
    memory.add(np.array([[obs]], np.float32), np.array([action]), step)
