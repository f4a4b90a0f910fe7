"""How actions are chosen from action values: each environment decides for itself."""

import numpy as np
from torch import Tensor

from slm_lab.agent.net.distribution import Categorical, Numbers, one_hot, to_numpy


def greedy(q: Numbers) -> np.ndarray:
    """Return the best action of each environment. `q` is `[N, A]`, the result `[N]` int64."""
    return to_numpy(q).argmax(-1)


def epsilon_greedy(q: Numbers, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly random action with probability `epsilon`, else the best; one coin for each environment.

    Args:
        q: action values, `[N, A]`.
        epsilon: probability of a random action, in [0, 1].
        rng: source of the coins and of the random actions.

    Returns:
        Actions, `[N]` int64.
    """
    num_envs, num_actions = q.shape
    explore = (rng.random(num_envs) < epsilon).nonzero()[0]
    action = greedy(q)
    if len(explore):
        action[explore] = rng.integers(num_actions, size=len(explore))
    return action


def boltzmann(q: Numbers, tau: float, rng: np.random.Generator) -> np.ndarray:
    """Sample actions with probability proportional to exp(q / tau), tau > 0. `q` is `[N, A]`, the result `[N]`."""
    return Categorical(to_numpy(q) / tau).sample(rng)


def choose(policy: str, q: Numbers, explore_var: float, rng: np.random.Generator) -> np.ndarray:
    """Return the actions of `policy`: greedy, epsilon_greedy (`explore_var` is ε) or boltzmann (it is τ).

    `q` is `[N, A]`, the result `[N]`.
    """
    match policy:
        case "epsilon_greedy":
            return epsilon_greedy(q, explore_var, rng)
        case "boltzmann":
            return boltzmann(q, explore_var, rng)
    return greedy(q)


def probabilities(policy: str, q: Tensor, explore_var: float) -> Tensor:
    """Return with what probability `choose` takes each action, `[N, A]`; greedy has an `explore_var` of 0."""
    if policy == "boltzmann":
        return (q / explore_var).softmax(-1)
    num_actions = q.shape[-1]
    return (1 - explore_var) * one_hot(q.argmax(-1), num_actions) + explore_var / num_actions
