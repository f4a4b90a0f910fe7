"""Numbers whose partial sums are kept, so that one of them is drawn in proportion to its size in O(log n)."""

import numpy as np

BRANCHES = 16  # numpy sums sixteen numbers about as fast as two, and the tree has a quarter of the levels


class SumTree:
    """A tree whose leaves are numbers ≥ 0, and each node above them the sum of its sixteen children.

    A level is an array of whole families; family i of one is summed up by node i of the level above, and the first is a
    single family. A sum is always taken anew and never changed by a difference, so that the same leaves make the same
    tree, to the bit.

    Args:
        nodes: `nodes_for(leaves)` zeros; the tree lives in them.
        leaves: how many there are, from 1 on.
    """

    def __init__(self, nodes: np.ndarray, leaves: int) -> None:
        sizes = _level_sizes(leaves)
        self.nodes = nodes
        self.levels = np.split(nodes, np.cumsum(sizes)[:-1])
        self._families = [level.reshape(-1, BRANCHES) for level in self.levels]
        self.leaves = self.levels[-1][:leaves]

    @staticmethod
    def nodes_for(leaves: int) -> int:
        """Return how many nodes there are in a tree of so many leaves."""
        return sum(_level_sizes(leaves))

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self.levels[0].sum())

    def set(self, index: np.ndarray, value: np.ndarray | float) -> None:
        """Write `value` into the leaves `index` ([B]; of one that stands there twice, the last counts)."""
        self.leaves[index] = value
        for level in range(len(self.levels) - 1, 0, -1):
            index = index // BRANCHES
            self.levels[level - 1][index] = self._families[level][index].sum(1)

    def rebuild(self) -> None:
        """Sum up leaves that were written directly."""
        for level in range(len(self.levels) - 1, 0, -1):
            self.levels[level - 1][: len(self._families[level])] = self._families[level].sum(1)

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Return for each `mass` ([B], in [0, total)) the leaf at which the running sum of the leaves passes it.

        Never a leaf of 0, however the sums were rounded.
        """
        every, node = np.arange(len(mass)), np.zeros(len(mass), np.int64)
        for families in self._families:
            sums = families[node].cumsum(1)
            # the first child whose running sum is more; beyond the end, the last that adds anything
            child = np.minimum((mass[:, None] >= sums).sum(1), (sums == sums[:, -1:]).argmax(1))
            mass = mass - sums[every, child - 1] * (child > 0)
            node = node * BRANCHES + child
        return node


def _level_sizes(leaves: int) -> list[int]:
    """Return the sizes of the levels, from the single family at the top to the leaves."""
    families = -(-leaves // BRANCHES)
    size = families * BRANCHES
    return [size] if families == 1 else [*_level_sizes(families), size]
