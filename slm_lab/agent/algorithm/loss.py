"""Losses: pure functions of tensors, none with state."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.spec.errors import SpecError

LossFn = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target) -> loss of each element."""

REGRESSION_LOSSES = ("MSELoss", "SmoothL1Loss", "HuberLoss", "L1Loss")

_LOG_RATIO_MAX = 20.0  # e^20 is far outside any trust region; beyond it the ratio only overflows


def make_loss(loss_spec: Mapping[str, Any]) -> nn.Module:
    """Build the regression loss that `loss_spec` names; it does not reduce: one loss for each element.

    Args:
        loss_spec: name of a `torch.nn` loss and its keyword arguments, e.g. `{"name": "SmoothL1Loss", "beta": 0.5}`.

    Raises:
        SpecError: unknown name or argument.
    """
    kwargs = dict(loss_spec)
    name = kwargs.pop("name")
    if name not in REGRESSION_LOSSES:
        raise SpecError(f"agent.net.loss_spec.name: unknown loss {name!r}; use {', '.join(REGRESSION_LOSSES)}")
    try:
        return getattr(nn, name)(**kwargs, reduction="none")
    except TypeError as error:
        raise SpecError(f"agent.net.loss_spec: {error}") from error


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Return -mean(log pi(a|s) A), Williams 1992. Tensors `[B]` or `[T, N]`; `advantage` without gradient."""
    return -(log_prob * advantage).mean()


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_eps: Tensor) -> Tensor:
    """Return PPO's policy loss, Schulman et al. 2017, arXiv:1707.06347 eq. 7.

    -mean min(r A, clip(r, 1 - eps, 1 + eps) A),   r = pi(a|s) / pi_old(a|s)

    Tensors `[B]`; `old_log_prob` and `advantage` without gradient. `clip_eps` is a scalar.
    """
    ratio = (log_prob - old_log_prob).clamp(max=_LOG_RATIO_MAX).exp()
    free, clipped = ratio * advantage, ratio.detach().clamp(1 - clip_eps, 1 + clip_eps) * advantage
    # the lower one, chosen by `where`: the gradient of torch's minimum takes longer, and a clipped ratio has none
    return -torch.where(free <= clipped, free, clipped).mean()


def approx_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Estimate KL(pi_old || pi) from actions of the old policy: mean(r - 1 - log r), never negative. Tensors `[B]`.

    Schulman 2020, "Approximating KL divergence", k3. No gradient.
    """
    log_ratio = (log_prob - old_log_prob).detach()
    return (log_ratio.expm1() - log_ratio).mean()


def value_loss(
    value: Tensor,
    target: Tensor,
    loss_fn: LossFn,
    old_value: Tensor | None = None,
    clip_eps: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a value estimate. Tensors of one shape, all but `value` without gradient.

    With `old_value` and `clip_eps` it is, for each element, the greater of the losses of `value` and of `value` clipped
    to old_value ± clip_eps, so that a step beyond the clip is never rewarded (PPO2). The scale is the same as without.
    """
    if old_value is not None and clip_eps is not None:
        clipped = old_value + torch.clamp(value - old_value, -clip_eps, clip_eps)
        # every regression loss grows with the distance, so the greater loss is the loss of the farther one
        value = torch.where((clipped - target).abs() > (value - target).abs(), clipped, value)
    return loss_fn(value, target).mean()


def critics_loss(q: Tensor, target: Tensor, weight: Tensor, loss_fn: LossFn) -> Tensor:
    """Return the mean over a batch of the summed losses of several critics, a scalar.

    Args:
        q: values of the actions taken, `[count, B]`.
        target: `[B]`, without gradient.
        weight: of each transition, `[B]`.
        loss_fn: from `make_loss`.
    """
    return (weight * loss_fn(q, target.expand_as(q)).sum(0)).mean()


def temperature_loss(log_alpha: Tensor, entropy: Tensor, target_entropy: float) -> Tensor:
    """Return log alpha (H - target): falls as log alpha rises where there is too little entropy.

    Haarnoja et al. 2018, arXiv:1812.05905 eq. 18, with log alpha in the place of alpha: the same sign of the gradient,
    whose size does not vanish with alpha.
    """
    return log_alpha * (entropy.detach() - target_entropy)


def q_loss(q: Tensor, action: Tensor, target: Tensor, loss_fn: LossFn) -> Tensor:
    """Return the losses of the values of the actions taken, `[B]`.

    Args:
        q: Q(s, ·), `[B, A]`.
        action: `[B]` int64.
        target: `[B]`, without gradient.
        loss_fn: from `make_loss`.
    """
    return loss_fn(q.gather(-1, action.unsqueeze(-1)).squeeze(-1), target)


def quantile_huber(quantile: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Return the quantile Huber losses `[B]` (Dabney et al. 2018, arXiv:1710.10044 eq. 10).

    sum_i mean_j |tau_i - 1{u < 0}| L(u) / kappa,   u = target_j - quantile_i,   tau_i = (i - 1/2) / n

    with Huber's L(u) = u^2 / 2 for |u| <= kappa, else kappa (|u| - kappa / 2). Divided by kappa as in arXiv:1806.06923,
    so that it is the loss of quantile regression where kappa is small.

    Args:
        quantile: `[B, n]`.
        target: `[B, m]`, samples of what the quantiles are to be of; without gradient.
        kappa: above 0.
    """
    n = quantile.shape[-1]
    tau = (torch.arange(n, dtype=quantile.dtype, device=quantile.device) + 0.5) / n
    error = target.unsqueeze(1) - quantile.unsqueeze(-1)  # [B, n, m]
    size = error.abs()
    huber = torch.where(size <= kappa, 0.5 * error.square(), kappa * (size - 0.5 * kappa))
    return ((tau.unsqueeze(-1) - (error < 0).to(tau.dtype)).abs() * huber / kappa).mean(-1).sum(-1)
