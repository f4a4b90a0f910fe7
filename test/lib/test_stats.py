import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.stats import bootstrap_ci, iqm

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # a quarter of three is no whole value: nothing is cut
        ([100.0, 1.0, 2.0, -100.0], 1.5),  # one off each end
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0], 3.5),  # two off each end
        ([1.0, 2.0, 3.0, 4.0, 50.0], 3.0),
    ],
)
def test_iqm_by_hand(values, expected):
    assert iqm(values) == expected


def test_nothing_and_nan_have_no_iqm():
    assert math.isnan(iqm([]))
    assert math.isnan(iqm([1.0, math.nan, 2.0, 3.0]))


def test_interval_of_a_mean_is_near_the_normal_one():
    x = np.random.default_rng(0).normal(10.0, 2.0, size=400)
    low, high = bootstrap_ci(x, fn=np.mean)
    half = 1.96 * x.std() / math.sqrt(400)
    assert low == pytest.approx(x.mean() - half, abs=0.05)
    assert high == pytest.approx(x.mean() + half, abs=0.05)


def test_interval_is_wider_at_a_higher_level_and_the_same_every_time():
    x = [1.0, 4.0, 2.0, 8.0, 5.0]
    narrow, wide = bootstrap_ci(x, level=0.5), bootstrap_ci(x, level=0.95)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert wide == bootstrap_ci(x, level=0.95)


def test_interval_of_one_value_and_of_none():
    assert bootstrap_ci([3.0]) == (3.0, 3.0)
    assert all(math.isnan(end) for end in bootstrap_ci([]))


@given(VALUES)
def test_interval_lies_within_the_values(values):
    low, high = bootstrap_ci(values, n=50)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


@given(VALUES, st.floats(-1e3, 1e3))
def test_iqm_moves_with_its_values(values, shift):
    assert iqm([value + shift for value in values]) == pytest.approx(iqm(values) + shift, abs=1e-6)
    assert iqm(values[::-1]) == pytest.approx(iqm(values))
