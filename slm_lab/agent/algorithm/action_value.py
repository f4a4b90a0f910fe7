"""What a net says about an action: its value, or the distribution of the return whose mean the value is.

Each kind has `atoms` outputs for every action. `q` turns the outputs `[B, A, atoms]` into values `[B, A]`; `loss`
compares the outputs of the actions taken with what followed.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from slm_lab.agent.algorithm.estimator import project
from slm_lab.agent.algorithm.loss import LossFn, quantile_huber


class ActionValue(Protocol):
    """A kind of action values."""

    atoms: int

    def q(self, out: Tensor) -> Tensor:
        """Return the values `[B, A]` that the outputs `[B, A, atoms]` stand for."""
        ...

    def loss(self, out: Tensor, reward: Tensor, discount: Tensor, next_out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each transition, and how far off its value was (for priorities), `[B]` both.

        Args:
            out: outputs of the actions taken, `[B, atoms]`.
            reward: `[B]`.
            discount: `[B]`, of what follows.
            next_out: outputs of the next actions, `[B, atoms]`, without gradient.
        """
        ...


class Mean:
    """The value itself, fitted by a regression loss; how far off is the temporal-difference error."""

    atoms = 1

    def __init__(self, loss_fn: LossFn) -> None:
        self.loss_fn = loss_fn

    def q(self, out: Tensor) -> Tensor:
        """Return the values `[B, A]`."""
        return out.squeeze(-1)

    def loss(self, out: Tensor, reward: Tensor, discount: Tensor, next_out: Tensor) -> tuple[Tensor, Tensor]:
        """Compare with r + gamma^n Q(s', a')."""
        q, target = out.squeeze(-1), reward + discount * next_out.squeeze(-1)
        return self.loss_fn(q, target), (target - q).detach()


class C51:
    """Probabilities (as logits) of `atoms` fixed returns (Bellemare et al. 2017, arXiv:1707.06887, Algorithm 1).

    The loss is the Kullback-Leibler divergence of the projected target from the prediction: the paper's cross-entropy
    less the target's entropy, so the gradient is the same, and it is 0 where there is nothing to learn. It serves as
    how far off the value was, too (Hessel et al. 2018, arXiv:1710.02298).
    """

    def __init__(self, v_min: float, v_max: float, num_atoms: int, device: torch.device) -> None:
        # not made on the device: on torch's meta device that imports sympy, which takes a third of a second
        self.atoms, self.support = num_atoms, torch.linspace(v_min, v_max, num_atoms, device="cpu").to(device)

    def q(self, out: Tensor) -> Tensor:
        """Return the values `[B, A]`."""
        # an array where it is to act
        return torch.as_tensor(out, device=self.support.device).softmax(-1) @ self.support

    def loss(self, out: Tensor, reward: Tensor, discount: Tensor, next_out: Tensor) -> tuple[Tensor, Tensor]:
        """Compare with the projected distribution of r + gamma^n Z(s', a')."""
        target = project(next_out.softmax(-1), reward, discount, self.support)
        loss = functional.kl_div(out.log_softmax(-1), target, reduction="none").sum(-1)
        return loss, loss.detach()


class QR:
    """Quantiles of the return, at the middles of `atoms` equal shares (Dabney et al. 2018, arXiv:1710.10044).

    The loss serves as how far off the value was, too.
    """

    def __init__(self, num_quantiles: int, kappa: float) -> None:
        self.atoms, self.kappa = num_quantiles, kappa

    def q(self, out: Tensor) -> Tensor:
        """Return the values `[B, A]`."""
        return out.mean(-1)

    def loss(self, out: Tensor, reward: Tensor, discount: Tensor, next_out: Tensor) -> tuple[Tensor, Tensor]:
        """Compare with the quantiles of r + gamma^n Z(s', a')."""
        target = reward.unsqueeze(-1) + discount.unsqueeze(-1) * next_out
        loss = quantile_huber(out, target, self.kappa)
        return loss, loss.detach()


def make_action_value(spec: Any, loss_fn: LossFn, device: torch.device) -> ActionValue:
    """Build what `value_dist_spec` describes; where there is none, the mean with `loss_fn`."""
    if spec is None:
        return Mean(loss_fn)
    if spec.name == "C51":
        return C51(spec.v_min, spec.v_max, spec.num_atoms, device)
    return QR(spec.num_quantiles, spec.kappa)
