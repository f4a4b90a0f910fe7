"""Numbers whose partial sums are kept, so that one of them is drawn in proportion to its size in O(log n)."""

import numpy as np


class SumTree:
    """A complete binary tree whose leaves are numbers ≥ 0 and whose every other node is the sum of its two children.

    Node 1 is the root, node i has the children 2i and 2i + 1; the leaves are the second half of the nodes. A node is
    always computed from its children anew and never by a difference, so the same leaves make the same tree, to the bit.

    Args:
        nodes: [2^k], k ≥ 1, all 0; the tree lives in it.
    """

    def __init__(self, nodes: np.ndarray) -> None:
        self.nodes = nodes
        self.first = len(nodes) // 2
        self.leaves = nodes[self.first :]

    @staticmethod
    def nodes_for(leaves: int) -> int:
        """Return how many nodes a tree of at least so many leaves has."""
        return 2 << (leaves - 1).bit_length()

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self.nodes[1])

    def set(self, index: np.ndarray, value: np.ndarray | float) -> None:
        """Write `value` into the leaves `index` ([B]; of one that stands there twice, the last counts)."""
        node = index + self.first
        self.nodes[node] = value
        for _ in range(self.first.bit_length() - 1):
            node = node >> 1
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def rebuild(self) -> None:
        """Compute all sums from leaves that were written directly."""
        start = self.first
        while start > 1:
            level = self.nodes[start : 2 * start]
            start //= 2
            self.nodes[start : 2 * start] = level[::2] + level[1::2]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Return for each `mass` ([B], in [0, total)) the leaf at which the running sum of the leaves passes it.

        Never a leaf of 0, however the sums were rounded.
        """
        node = np.ones(len(mass), np.int64)
        for _ in range(self.first.bit_length() - 1):
            node = 2 * node
            left = self.nodes[node]
            right = (mass >= left) & (self.nodes[node + 1] > 0)
            mass = mass - left * right
            node += right
        return node - self.first
