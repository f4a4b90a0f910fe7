"""What a recurrent net is shown in place of single observations."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class History(NamedTuple):
    """Sequences of observations: a recurrent net takes it where another takes `[B, *obs]`.

    The net puts out a row for each observation, ordered as `obs.flatten(0, 1)`, or for some of them.
    """

    obs: Tensor
    """[L, B, *obs] L successive observations of each of B sequences."""
    first: Tensor
    """[L, B] bool, whether an episode begins here: the state is reset before it."""
    state: Tensor | None
    """[B, H] the hidden state before the first row, of all the nets that read this history side by side; None: 0."""
    out: Tensor | None = None
    """[B, H] where the hidden state after the last row is written; None where nobody asks for it."""
    rows: Tensor | None = None
    """[M] int64, the rows `l * B + b` that the net puts out; None: all."""

    def of_net(self, start: int, size: int) -> Self:
        """Return the history as the net sees it whose state lies in these columns."""
        state, out = (None if x is None else x.narrow(1, start, size) for x in (self.state, self.out))
        return self._replace(state=state, out=out)

    def take(self, sequences: Tensor) -> Self:
        """Return the history of the sequences `[K]` int64."""
        state = None if self.state is None else self.state[sequences]
        return self._replace(obs=self.obs[:, sequences], first=self.first[:, sequences], state=state, out=None)

    def beside(self, other: Self) -> Self:
        """Return the sequences of both, which are of one length."""
        state = None if self.state is None or other.state is None else torch.cat([self.state, other.state])
        obs, first = torch.cat([self.obs, other.obs], 1), torch.cat([self.first, other.first], 1)
        return self._replace(obs=obs, first=first, state=state)
