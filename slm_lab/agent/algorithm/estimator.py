"""Targets and advantages: pure functions of tensors, time-major `[T, N]` (T vector steps of N environments).

Two flags, always: `terminated` cuts the value (nothing follows a true end), `done = terminated | truncated` cuts the
trace (what follows belongs to another episode). `next_value[t]` is the value of the true successor of the observation
at t: of the episode's last observation where one ended, and of the next row elsewhere.
"""

from functools import reduce

import torch
from torch import Tensor


def successor_value(value: Tensor, last_value: Tensor, ended: Tensor, final_value: Tensor) -> Tensor:
    """Assemble `next_value` from the values of a rollout.

    Args:
        value: V(obs), `[T, N]`.
        last_value: V of what follows the last row, `[N]`.
        ended: flat indices t*N+n of the rows that ended an episode, `[K]` int64.
        final_value: V of the true last observations of those rows, `[K]`.

    Returns:
        V of the true successor, `[T, N]`.
    """
    following = torch.cat([value[1:], last_value.unsqueeze(0)]).flatten()
    return following.scatter(0, ended, final_value).view_as(value)


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimation, Schulman et al. 2016, arXiv:1506.02438 eq. 11 and 16. All tensors `[T, N]`.

    A_t = delta_t + gamma lam (1 - done_t) A_{t+1},   delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)
    """
    delta = td_target(reward, next_value, terminated, gamma) - value
    return _accumulate(delta, done, gamma * lam)


def nstep_return(reward: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float) -> Tensor:
    """Return the discounted rewards to the end of the episode or of the batch, bootstrapped there. Tensors `[T, N]`.

    R_t = r_t + gamma R_{t+1};   where the trace ends, R_t = r_t + gamma (1 - terminated_t) V(s_{t+1})
    """
    cut = done.clone()
    cut[-1] = True
    return _accumulate(reward + gamma * next_value * (cut & ~terminated), done, gamma)


def monte_carlo_return(reward: Tensor, done: Tensor, gamma: float) -> Tensor:
    """Return the discounted rewards to the end of the episode or of the batch, with nothing after. Tensors `[T, N]`."""
    return _accumulate(reward, done, gamma)


def td_target(reward: Tensor, next_q: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """Return r + gamma (1 - terminated) next_q. Tensors of one shape, `[B]` or `[T, N]`."""
    return reward + gamma * next_q * ~terminated


def soft_value(q: Tensor, prob: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """Return the value of a policy that is paid alpha for each nat of entropy, by several critics, `[B]`.

    V = sum_K prob (q - alpha log_prob). Where K = 1, a sample, q is the lowest of the critics (Haarnoja et al. 2018,
    arXiv:1812.05905 eq. 3). Where the expectation over K actions is exact (Christodoulou 2019, arXiv:1910.07207
    eq. 10, which takes the lowest as well), q is their mean: the lowest underrates what was seldom tried, and on sparse
    rewards nothing is learned (Zhou et al. 2022, arXiv:2209.10081).

    Args:
        q: values of `[count, B, K]`.
        prob: what each of the K stands for, `[B, K]`.
        log_prob: log-probabilities of the K, `[B, K]`.
        alpha: temperature, a scalar.
    """
    q = lowest(q) if prob.shape[-1] == 1 else q.mean(0)
    return (prob * (q - alpha * log_prob)).sum(-1)


def lowest(q: Tensor) -> Tensor:
    """Return the lowest of several critics' values, `[count, ...]` -> `[...]`.

    As `amin`, of which compilers make something slow; by indices, as to unbind makes torch import sympy.
    """
    return reduce(torch.minimum, [q[i] for i in range(len(q))])


def project(probability: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """Project the distribution of r + discount Z onto the support of Z (Bellemare et al. 2017, arXiv:1707.06887 eq. 7).

    m_i = sum_j [1 - |[r + discount z_j] - z_i| / dz] p_j,   inner brackets clipped to [z_1, z_n], outer ones to [0, 1]

    Every atom's mass is thus shared out between the two nearest. All masses sum to 1, and the mean stays what it was
    where nothing is clipped. (A sum over all pairs, where the paper's Algorithm 1 adds up by index: that is done in any
    order on a GPU, and the same seed would give other bits.)

    Args:
        probability: of Z, `[B, n]`.
        reward: `[B]`.
        discount: `[B]`.
        support: z, `[n]`, ascending and evenly spaced.

    Returns:
        `[B, n]`.
    """
    low, high = support[0], support[-1]
    moved = (reward.unsqueeze(-1) + discount.unsqueeze(-1) * support).clamp(low, high)
    distance = (moved.unsqueeze(1) - support.unsqueeze(-1)).abs() / (support[1] - support[0])
    return ((1 - distance).clamp(min=0) @ probability.unsqueeze(-1)).squeeze(-1)


def standardize(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Return `x` with mean 0 and standard deviation 1 over all its elements; of a constant `x` one number is left."""
    x = x - x.mean()
    # the population's deviation: that of a sample is not a number for a single element
    return x / (x.square().mean().sqrt() + eps)


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) ln(|x| + 1), Hafner et al. 2023, arXiv:2301.04104 eq. 9: near 0 it is x, far away a logarithm."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Return sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def _accumulate(x: Tensor, done: Tensor, rate: float) -> Tensor:
    """Return y_t = x_t + rate (1 - done_t) y_{t+1} with y_T = 0, over the first dimension.

    Recursive doubling: when each y_t covers k rows, one whole-tensor step makes it cover 2k. ceil(log2 T) steps instead
    of T, no division, and what lies behind a `done` counts exactly nothing.
    """
    y, decay, rows, k = x.clone(), rate * (~done).to(x.dtype), len(x), 1
    while k < rows:
        y[:-k] += decay[: rows - k] * y[k:]
        decay = decay[:-k] * decay[k:]
        k *= 2
    return y
