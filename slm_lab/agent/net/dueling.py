"""Dueling heads."""

from torch import Tensor, nn


class DuelingHead(nn.Module):
    """Action values as a value of the state and an advantage of each action (Wang et al. 2016, arXiv:1511.06581 eq. 9).

    Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')

    Each may be several numbers, as the atoms of a distribution; then the sum is one of each of them (Hessel et al.
    2018, arXiv:1710.02298, section 4). The paper's streams have a hidden layer each; here V and A are linear in what
    the body makes of the observation.

    Args:
        value: from features `[B, F]` to V `[B, atoms]`.
        advantage: from features `[B, F]` to A `[B, actions * atoms]`, action by action.
    """

    def __init__(self, value: nn.Module, advantage: nn.Module) -> None:
        super().__init__()
        self.value, self.advantage = value, advantage

    def forward(self, features: Tensor) -> Tensor:
        """Return Q, `[B, actions * atoms]`."""
        value = self.value(features).unsqueeze(1)
        advantage = self.advantage(features).unflatten(1, (-1, value.shape[-1]))
        return (value + advantage - advantage.mean(1, keepdim=True)).flatten(1)
