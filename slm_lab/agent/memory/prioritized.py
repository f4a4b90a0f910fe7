"""Prioritised replay: transitions that surprise are handed out more often.

Schaul et al. 2016, "Prioritized Experience Replay", arXiv:1511.05952.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from slm_lab.agent.memory.columns import Plan
from slm_lab.agent.memory.replay import Replay, ReplayBatch
from slm_lab.agent.memory.sum_tree import SumTree
from slm_lab.lib.schedule import Schedule

UNSORTED = 1024  # changes of rows that are put into the tree together at the latest


class PrioritizedReplay(Replay):
    """A replay that draws a transition with a probability P(i) = p_i^alpha / sum p_k^alpha (eq. 1).

    The priority is p_i = |error_i| + epsilon (proportional variant, section 3.3); a new transition gets the largest
    that there has been so far. A batch is stratified: the whole is cut into as many equal parts as the batch has
    places, and one transition comes from each. Weights of the loss make up for the preference (section 3.4):

        w_i = (N P(i))^-beta / max_j w_j,   j over the batch

    Args:
        alpha: how much priorities count; 0 is uniform.
        epsilon: what is added to an error, so that no transition is lost.
        beta: how much the weights make up for, over frames; 1 is in full.
        replay: the arguments of `Replay`.
    """

    def __init__(self, *, alpha: float, epsilon: float, beta: Schedule, **replay: Any) -> None:
        super().__init__(**replay)
        self.alpha, self.epsilon, self.beta = alpha, epsilon, beta
        self.tree = SumTree(self._column["priority"], self.capacity)
        self._largest = 1.0  # of p^alpha
        self._marked: list[np.ndarray] = []  # rows whose transition came or went since they were put into the tree

    @staticmethod
    def plan(obs_space: gym.Space, action_space: gym.Space, num_envs: int, max_size: int, frame_stack: int = 1) -> Plan:
        """Return the arrays that such a memory allocates."""
        plan = Replay.plan(obs_space, action_space, num_envs, max_size, frame_stack)
        (capacity,), _ = plan["valid"]
        return plan | {"priority": ((SumTree.nodes_for(capacity),), np.dtype(np.float64))}

    def sample(self, batch_size: int | None = None, frame: int = 0) -> ReplayBatch:
        """Draw transitions in proportion to their priorities, with the weights that make up for it.

        Args:
            batch_size: how many; by default the memory's own.
            frame: frames so far; beta is a function of it.

        Raises:
            ValueError: there is none yet.
        """
        batch = super().sample(batch_size)
        probability = self.tree.leaves[batch.index] / self.tree.total
        weight = (self.size * probability) ** -self.beta(frame)
        return batch._replace(weight=self._there((weight / weight.max()).astype(np.float32)))

    def update_priorities(self, index: np.ndarray, error: torch.Tensor) -> None:
        """Set priorities after a gradient step.

        Args:
            index: [B], of a batch.
            error: [B], how far off the values of its transitions were.
        """
        priority = (np.abs(error.detach().cpu().numpy().astype(np.float64)) + self.epsilon) ** self.alpha
        self._largest = max(self._largest, float(priority.max()))
        self.tree.set(index, priority * self.valid[index])

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly. The big tensors are views: use them before the next `add`."""
        self._sort_in()
        return super().state_dict() | {"largest": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; ValueError where it comes from a memory of other sizes."""
        self.tree.leaves[:] = 0
        super().load_state_dict(state)
        self.tree.rebuild()
        self._largest, self._marked = state["largest"], []

    def _draw(self, count: int) -> np.ndarray:
        """Return `count` valid rows, one of each stratum, in random order: newer ones may replace the last."""
        self._check_any()
        self._sort_in()
        place = self._rng.permutation(count) + self._rng.random(count)
        return self.tree.find(place * (self.tree.total / count))

    def _mark(self, row: np.ndarray, valid: bool) -> None:
        super()._mark(row, valid)
        self._marked.append(row)
        if len(self._marked) == UNSORTED:
            self._sort_in()

    def _sort_in(self) -> None:
        """Put the rows that have changed into the tree, all at once: what it costs is levels, hardly rows."""
        if self._marked:
            row = np.concatenate(self._marked)
            self.tree.set(row, np.where(self.valid[row], self._largest, 0.0))
            self._marked.clear()

    def _columns(self) -> dict[str, np.ndarray]:
        return super()._columns() | {"priority": self.tree.leaves}
