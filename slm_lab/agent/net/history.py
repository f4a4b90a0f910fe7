"""What a recurrent net is shown in place of single observations."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class History(NamedTuple):
    """Sequences of observations: a recurrent net takes it where another takes `[B, *obs]`.

    The net puts out a row for each observation, ordered as `obs.flatten(0, 1)`.
    """

    obs: Tensor
    """[L, B, *obs] L successive observations of each of B sequences."""
    first: Tensor
    """[L, B] bool, whether an episode begins here: the state is reset before it."""
    state: Tensor
    """[B, H] the hidden state before the first row, of all the nets that read this history side by side."""
    out: Tensor | None = None
    """[B, H] where the hidden state after the last row is written; None where nobody asks for it."""

    def of_net(self, start: int, size: int) -> Self:
        """Return the history as the net sees it whose state lies in these columns."""
        out = None if self.out is None else self.out.narrow(1, start, size)
        return self._replace(state=self.state.narrow(1, start, size), out=out)

    def take(self, sequences: Tensor) -> Self:
        """Return the history of the sequences `[K]` int64."""
        return self._replace(
            obs=self.obs[:, sequences], first=self.first[:, sequences], state=self.state[sequences], out=None
        )

    def beside(self, other: Self) -> Self:
        """Return the sequences of both, which are of one length."""
        return self._replace(
            obs=torch.cat([self.obs, other.obs], 1),
            first=torch.cat([self.first, other.first], 1),
            state=torch.cat([self.state, other.state]),
        )
