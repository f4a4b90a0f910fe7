import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_lab.agent.memory.sum_tree import SumTree


def tree_of(*values):
    tree = SumTree(np.zeros(SumTree.nodes_for(len(values))))
    tree.set(np.arange(len(values)), np.array(values, np.float64))
    return tree


@pytest.mark.parametrize(("leaves", "nodes"), [(1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (1 << 20, 2 << 20)])
def test_size(leaves, nodes):
    assert SumTree.nodes_for(leaves) == nodes


def test_sums_by_hand():
    tree = tree_of(1, 2, 4, 8, 16)
    assert tree.nodes.tolist() == [0, 31, 15, 16, 3, 12, 16, 0, 1, 2, 4, 8, 16, 0, 0, 0]
    tree.set(np.array([1, 4, 1]), np.array([9.0, 0.0, 3.0]))
    assert tree.nodes.tolist() == [0, 16, 16, 0, 4, 12, 0, 0, 1, 3, 4, 8, 0, 0, 0, 0]
    assert tree.total == 16


def test_finding_by_hand():
    tree = tree_of(1, 0, 4, 0, 2)
    assert tree.find(np.array([0, 0.99, 1, 4.99, 5, 6.99])).tolist() == [0, 0, 2, 2, 4, 4]
    assert tree.find(np.array([7.0, 99.0])).tolist() == [4, 4], "rounding beyond the end stays on the last that counts"


def test_a_single_leaf():
    tree = tree_of(3)
    assert tree.find(np.array([0.0, 2.9])).tolist() == [0, 0]
    assert tree.total == 3


numbers = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=40).filter(any)


@settings(max_examples=200, deadline=None)
@given(numbers, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_leaf_found_is_the_one_whose_interval_holds_the_mass(values, shares):
    tree = tree_of(*values)
    mass = np.array(shares) * tree.total
    found = tree.find(mass)
    assert (tree.leaves[found] > 0).all()
    ends = np.cumsum(values)
    slack = 1e-9 * tree.total  # sums two by two and one by one are rounded differently
    assert (ends[found] >= mass - slack).all()
    assert (ends[found] - np.array(values)[found] <= mass + slack).all()


@settings(max_examples=100, deadline=None)
@given(numbers, st.data())
def test_many_changes_make_the_same_tree_as_one(values, data):
    size, steps = len(values), data.draw(st.integers(0, 5))
    tree = SumTree(np.zeros(SumTree.nodes_for(size)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for _ in range(steps):
        tree.set(rng.integers(size, size=3), rng.random(3))
    tree.set(np.arange(size), np.array(values))
    again = SumTree(np.zeros_like(tree.nodes))
    again.leaves[:size] = values
    again.rebuild()
    assert np.array_equal(tree.nodes, again.nodes)
    assert np.array_equal(tree.nodes, tree_of(*values).nodes)
