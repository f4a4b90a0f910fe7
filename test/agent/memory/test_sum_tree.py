import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_lab.agent.memory.sum_tree import SumTree


def empty_tree(size):
    return SumTree(np.zeros(SumTree.nodes_for(size)), size)


def tree_of(*values):
    tree = empty_tree(len(values))
    tree.set(np.arange(len(values)), np.array(values, np.float64))
    return tree


@pytest.mark.parametrize(
    ("leaves", "nodes"),
    [
        (1, 16),
        (16, 16),
        (17, 16 + 32),
        (256, 16 + 256),
        (257, 16 + 32 + 272),
        (16**5, 16 + 16**2 + 16**3 + 16**4 + 16**5),
    ],
)
def test_size(leaves, nodes):
    assert SumTree.nodes_for(leaves) == nodes


def test_sums_by_hand():
    tree = tree_of(*range(40))
    above = [sum(range(16)), sum(range(16, 32)), sum(range(32, 40))]
    assert [len(level) for level in tree.levels] == [16, 48]
    assert tree.levels[0].tolist() == above + 13 * [0]
    assert tree.total == sum(range(40))
    tree.set(np.array([1, 33, 1]), np.array([9.0, 0.0, 3.0]))
    assert tree.levels[0].tolist() == [above[0] + 2, above[1], above[2] - 33] + 13 * [0]


def test_finding_by_hand():
    tree = tree_of(1, 0, 4, *[0] * 20, 2, 0, 3)
    mass = np.array([0, 0.99, 1, 4.99, 5, 6.99, 7, 9.99])
    assert tree.find(mass).tolist() == [0, 0, 2, 2, 23, 23, 25, 25]
    assert tree.find(np.array([10.0, 99.0])).tolist() == [25, 25], (
        "rounding beyond the end stays on the last that counts"
    )


def test_a_single_leaf():
    tree = tree_of(3)
    assert tree.find(np.array([0.0, 2.9])).tolist() == [0, 0]
    assert tree.total == 3


numbers = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=600).filter(any)


@settings(max_examples=200, deadline=None)
@given(numbers, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_leaf_found_is_the_one_whose_interval_holds_the_mass(values, shares):
    tree = tree_of(*values)
    mass = np.array(shares) * tree.total
    found = tree.find(mass)
    assert (tree.leaves[found] > 0).all()
    ends = np.cumsum(values)
    slack = 1e-9 * tree.total  # sums of families and one by one are rounded differently
    assert (ends[found] >= mass - slack).all()
    assert (ends[found] - np.array(values)[found] <= mass + slack).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**32))
def test_many_changes_make_the_same_tree_as_one(size, seed):
    rng = np.random.default_rng(seed)
    tree, again = empty_tree(size), empty_tree(size)
    for _ in range(5):
        tree.set(rng.integers(size, size=30), rng.exponential(size=30))
    again.leaves[:] = tree.leaves
    again.rebuild()
    assert np.array_equal(tree.nodes, again.nodes)
    assert np.array_equal(tree.nodes, tree_of(*tree.leaves).nodes)
