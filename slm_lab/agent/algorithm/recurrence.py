"""What recurrent nets remember: carried along while acting, and found again for the rollout that is learned from."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.memory import Replay, ReplayBatch, RolloutBatch
from slm_lab.agent.net.history import History
from slm_lab.env import Step


class HiddenState:
    """The hidden state of N environments between one step and the next; 0 where an episode begins.

    While acting, the state is carried along, but only that of the nets that act. That of the others (a critic of its
    own) stands where the rollout began until `recall` leads it on.

    Args:
        size: H, numbers in one environment's state; 0 for nets that are not recurrent, which have nothing to carry.
        num_envs: N.
        seq_len: rows of a training sequence; None where sequences are whole episodes.
        device: where the state lives.
    """

    def __init__(self, size: int, num_envs: int, seq_len: int | None, device: torch.device) -> None:
        self.size, self.seq_len = size, seq_len
        self._state = torch.zeros(num_envs, size, device=device)
        self._first = torch.ones(num_envs, dtype=torch.bool, device=device)
        self._begin_rollout()

    def see(self, obs: Tensor) -> History:
        """Return what a net takes to act on observations `[N, *obs]`; it leads the state on."""
        return History(obs.unsqueeze(0), self._first.unsqueeze(0), self._state, out=self._state)

    def follow(self, step: Step) -> None:
        """Take note of the environments in which an episode ended."""
        self._first.copy_(torch.from_numpy(np.logical_or(step.terminated, step.truncated)))

    def reset(self) -> None:
        """Begin new episodes everywhere."""
        self._state.zero_()
        self._first.fill_(True)
        self._begin_rollout()

    @torch.no_grad()
    def recall(self, net: nn.Module, batch: RolloutBatch) -> RolloutBatch:
        """Return a rollout `[T, N]` with a `History` in the place of its obs, last_obs and final_obs.

        The obs are cut into C chunks of `seq_len` rows, which become the `[seq_len, C * N]` of the history (see
        `in_chunks`). One pass over the rollout gives the states at which the chunks begin and the episodes end, under
        the very parameters that acted. Where nets are not recurrent, the rollout is returned as it is.

        Args:
            net: what the histories are for.
            batch: the rollout that began where the last one ended; or episodes, `[T, 1]`.
        """
        if not self.size:
            return batch
        steps, num_envs = batch.done.shape
        start = torch.zeros_like(self._state[:1]), torch.ones_like(self._first[:1])
        state, first = start if self.seq_len is None else self._start
        first = torch.cat([first.unsqueeze(0), batch.done[:-1]])
        length = self.seq_len or steps
        ends = (batch.done.any(1).nonzero().flatten() + 1).tolist()
        cuts = sorted({*range(0, steps + 1, length), *ends})
        states = [state]  # before each cut
        for begin, end in pairwise(cuts):
            states.append(torch.empty_like(state))
            net(History(batch.obs[begin:end], first[begin:end], states[-2], out=states[-1]))
        if self.seq_len is not None:
            self._state.copy_(states[-1])
            self._begin_rollout()
        cut_of_row = torch.searchsorted(torch.tensor(cuts, device=state.device), batch.ended // num_envs + 1)
        before_last = torch.stack(states)[cut_of_row, batch.ended % num_envs]
        going_on = torch.zeros_like(batch.ended, dtype=torch.bool)
        chunk_states = torch.cat([states[cuts.index(begin)] for begin in range(0, steps, length)])
        histories: dict[str, Any] = {
            "obs": History(in_chunks(batch.obs, length), in_chunks(first, length), chunk_states),
            "last_obs": History(batch.last_obs.unsqueeze(0), batch.done[-1:], states[-1]),
            "final_obs": History(batch.final_obs.unsqueeze(0), going_on.unsqueeze(0), before_last),
        }
        return batch._replace(**histories)

    def sample(self, memory: Replay, frame: int) -> ReplayBatch:
        """Draw a batch from a replay, with a `History` in the place of obs and next_obs.

        It has the transitions of `batch_size / seq_len` windows of `seq_len` rows, which begin where transitions were
        drawn, with no state (the random updates of Hausknecht & Stone 2015, arXiv:1507.06527). Rows at which none
        stands are left out, so there may be fewer. The next_obs follow on the very same observations. Where nets are
        not recurrent, it is the memory's own batch.
        """
        if not self.size or self.seq_len is None:
            return memory.sample(frame=frame)
        index = memory.sample(memory.batch_size // self.seq_len, frame).index
        drawn = memory.windows(index, self.seq_len)
        whole = History(drawn.obs, drawn.first, None, rows=drawn.next_place)
        obs = whole._replace(obs=whole.obs[: self.seq_len], first=whole.first[: self.seq_len], rows=drawn.place)
        histories: dict[str, Any] = {"obs": obs, "next_obs": whole}
        plain = {name: getattr(drawn, name) for name in ("action", "reward", "discount", "index")}
        return ReplayBatch(weight=torch.ones_like(drawn.reward), **plain, **histories)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly."""
        state, first = self._start
        return {"state": self._state, "first": self._first, "start_state": state, "start_first": first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])

    def _begin_rollout(self) -> None:
        self._start = self._state.clone(), self._first.clone()


def in_chunks(x: Tensor, length: int) -> Tensor:
    """Cut time into C chunks side by side: `[C * length, N, ...]` -> `[length, C * N, ...]`."""
    return x.unflatten(0, (-1, length)).transpose(0, 1).flatten(1, 2)


def from_chunks(x: Tensor, num_envs: int) -> Tensor:
    """Undo `in_chunks`: `[length, C * N, ...]` -> `[C * length, N, ...]`."""
    return x.unflatten(1, (-1, num_envs)).transpose(0, 1).flatten(0, 1)
