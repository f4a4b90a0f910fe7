import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.stats import (
    bootstrap_ci,
    improvement,
    iqm,
    iqm_score,
    mean_score,
    median_score,
    performance_profile,
    stratified_ci,
)

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)
SCORES = st.lists(st.integers(-100, 100), min_size=1, max_size=6).map(lambda runs: np.array(runs, dtype=float))
TASKS = st.lists(SCORES, min_size=1, max_size=4)
TWO = [np.array([1.0, 3.0, 5.0, 7.0]), np.array([0.0, 10.0, 20.0, 90.0])]
"""Two tasks of four runs: means 4 and 30."""


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


# --- over tasks and runs


def test_mean_median_and_iqm_by_hand():
    three = [*TWO, np.array([2.0])]
    assert mean_score(three) == 12.0  # of 4, 30, 2
    assert median_score(three) == 4.0
    assert iqm_score(TWO) == (3 + 5 + 7 + 10) / 4  # of 0 1 3 5 7 10 20 90 without two at each end


@given(SCORES)
def test_iqm_of_one_task_is_that_of_its_runs(runs):
    assert iqm_score([runs]) == pytest.approx(iqm(runs))


def test_probability_of_improvement_by_hand():
    x, y = [np.array([1.0, 3.0])], [np.array([0.0, 1.0, 2.0])]
    # 1 beats 0, ties 1, loses to 2; 3 beats all
    assert improvement(x, y) == (1 + 0.5 + 0 + 3) / 6
    assert improvement([*x, np.array([5.0])], [*y, np.array([9.0])]) == (0.75 + 0.0) / 2


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=4))
def test_probability_of_improvement_counts_each_pair_once(pairs):
    x, y = zip(*pairs, strict=True)
    assert improvement(x, y) + improvement(y, x) == pytest.approx(1.0)
    assert improvement(x, x) == pytest.approx(0.5)
    assert improvement([a + 1000 for a in x], y) == 1.0
    squashed = [np.tanh(a / 50) for a in x], [np.tanh(b / 50) for b in y]  # only the order counts
    assert improvement(*squashed) == pytest.approx(improvement(x, y))


def test_performance_profile_by_hand():
    profile = performance_profile(TWO, np.array([-1.0, 0.0, 4.0, 90.0]))
    assert profile.tolist() == [1.0, (1 + 0.75) / 2, (0.5 + 0.75) / 2, 0.0]


@given(TASKS)
def test_the_area_above_zero_of_a_profile_is_the_mean(tasks):
    positive = [np.abs(task) for task in tasks]
    thresholds = np.arange(0.0, 101.0)
    # the integral of P(X > τ) over τ from 0 is E[X]; for whole numbers it is a sum
    assert performance_profile(positive, thresholds).sum() == pytest.approx(float(mean_score(positive)))
    assert (np.diff(performance_profile(tasks, thresholds)) <= 0).all()


def test_a_stratified_resample_keeps_every_task_and_its_number_of_runs():
    seen = []
    stratified_ci(lambda tasks: seen.append(tasks) or mean_score(tasks), [np.array([1.0, 2.0, 3.0]), np.array([7.0])])
    [(first, second)] = seen
    assert first.shape == (2000, 3)
    assert set(np.unique(first)) == {1.0, 2.0, 3.0}
    assert (second == 7.0).all()


def test_a_stratified_interval_is_narrower_than_one_over_all_runs_together():
    # all the spread is between the tasks, so drawing within them gives none
    tasks = [np.array([0.0, 0.0, 0.0]), np.array([10.0, 10.0, 10.0])]
    assert stratified_ci(mean_score, tasks) == (5.0, 5.0)
    low, high = bootstrap_ci(np.concatenate(tasks), fn=np.mean)
    assert high - low > 5


def test_a_stratified_interval_of_a_mean_is_near_the_normal_one():
    rng = np.random.default_rng(0)
    tasks = [rng.normal(5.0, 2.0, size=200), rng.normal(50.0, 4.0, size=200)]
    low, high = stratified_ci(mean_score, tasks)
    half = 1.96 * math.sqrt(sum(task.var() / task.size for task in tasks)) / 2
    assert low == pytest.approx(mean_score(tasks) - half, abs=0.03)
    assert high == pytest.approx(mean_score(tasks) + half, abs=0.03)


@given(TASKS, TASKS)
def test_stratified_intervals_lie_within_reach_and_repeat(x, y):
    everything = np.concatenate(x)
    for statistic in (mean_score, median_score, iqm_score):
        low, high = stratified_ci(statistic, x, n=40)
        assert everything.min() - 1e-9 <= low <= high <= everything.max() + 1e-9
        assert stratified_ci(statistic, x, n=40) == (low, high)
    pairs = min(len(x), len(y))
    low, high = stratified_ci(improvement, x[:pairs], y[:pairs], n=40)
    assert 0.0 <= low <= high <= 1.0
    low, high = stratified_ci(lambda tasks: performance_profile(tasks, np.array([0.0, 50.0])), x, n=40)
    assert low.shape == high.shape == (2,)
