"""How actions are chosen from action values: each environment decides for itself."""

import torch
from torch import Tensor
from torch.nn import functional

from slm_lab.agent.net.distribution import Categorical


def greedy(q: Tensor) -> Tensor:
    """Return the best action of each environment. `q` is `[N, A]`, the result `[N]` int64."""
    return q.argmax(-1)


def epsilon_greedy(q: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Return a uniformly random action with probability `epsilon`, else the best; one coin for each environment.

    Args:
        q: action values, `[N, A]`.
        epsilon: probability of a random action, in [0, 1].
        generator: source of the coins and of the random actions, on the device of `q`.

    Returns:
        Actions, `[N]` int64.
    """
    num_envs, num_actions = q.shape
    coins = torch.rand(num_envs, generator=generator, device=q.device).tolist()
    explore = [env for env, coin in enumerate(coins) if coin < epsilon]
    action = greedy(q)
    if explore:
        action[explore] = torch.randint(num_actions, (len(explore),), generator=generator, device=q.device)
    return action


def boltzmann(q: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """Sample actions with probability proportional to exp(q / tau), tau > 0. `q` is `[N, A]`, the result `[N]`."""
    return Categorical(q / tau).sample(generator)


def choose(policy: str, q: Tensor, explore_var: float, generator: torch.Generator) -> Tensor:
    """Return the actions of `policy`: greedy, epsilon_greedy (`explore_var` is ε) or boltzmann (it is τ).

    `q` is `[N, A]`, the result `[N]`.
    """
    match policy:
        case "epsilon_greedy":
            return epsilon_greedy(q, explore_var, generator)
        case "boltzmann":
            return boltzmann(q, explore_var, generator)
    return greedy(q)


def probabilities(policy: str, q: Tensor, explore_var: float) -> Tensor:
    """Return with what probability `choose` takes each action, `[N, A]`; greedy has an `explore_var` of 0."""
    if policy == "boltzmann":
        return (q / explore_var).softmax(-1)
    num_actions = q.shape[-1]
    return (1 - explore_var) * functional.one_hot(greedy(q), num_actions) + explore_var / num_actions
