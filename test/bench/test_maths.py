"""From lines of progress to ratios."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.maths import Point, best_threads, middle, points_of, rates, ratios, rotated, window
from bench.meter import Meter

# updates at 10, 12, 14, …: 100 frames and 1 training event every 2 s
STEADY = [Point(10.0 + 2 * i, 100 * (i + 1), i + 1) for i in range(10)]


def test_points_are_read_among_other_lines():
    output = "hello\n@bench [1.5, 100, 1]\nWARNING: @bench is not here\n@bench [2.5, 300, 2]\n"
    assert points_of(output) == [Point(1.5, 100, 1), Point(2.5, 300, 2)]


def test_the_window_begins_at_the_first_event_after_the_warm_up():
    assert window(STEADY, warmup=3.0) == (STEADY[2], STEADY[-1])
    assert window(STEADY, warmup=4.0) == (STEADY[2], STEADY[-1])
    assert window(STEADY, warmup=0.0) == (STEADY[0], STEADY[-1])


def test_rates_leave_out_what_came_before_the_window():
    slow_start = [Point(0.0, 100, 1), *STEADY]  # a compiler that takes 10 s
    assert rates(slow_start, warmup=5.0) == pytest.approx((50.0, 0.5))


@pytest.mark.parametrize("points", [[], STEADY[:1], STEADY[:2]])
def test_too_little_to_measure_is_said(points):
    with pytest.raises(ValueError, match="update"):
        window(points, warmup=3.0)


def test_ratios_are_to_the_fastest_peer_of_the_same_round():
    lab = [300.0, 200.0, None, 100.0]
    peers = [[100.0, 50.0, 10.0, None], [50.0, 100.0, 10.0, None]]
    assert ratios(lab, peers) == [3.0, 2.0]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.floats(0.1, 10))
def test_a_round_that_is_slower_for_all_changes_no_ratio(speeds, ratio):
    found = ratios([ratio * speed for speed in speeds], [speeds, [speed / 2 for speed in speeds]])
    assert found == pytest.approx([ratio] * len(speeds))


def test_the_median_of_what_is_there():
    assert middle([3.0, None, 1.0, 2.0]) == 2.0
    assert middle([None]) is None


@given(st.integers(1, 6), st.integers(0, 20))
def test_every_side_has_its_turn_and_comes_first_equally_often(count, by):
    sides = [str(index) for index in range(count)]
    assert sorted(rotated(sides, by)) == sides
    assert sorted(rotated(sides, by + index)[0] for index in range(count)) == sides


def test_the_faster_thread_count_is_taken():
    assert best_threads({1: 10.0, 2: 20.0}) == 2
    assert best_threads({1: 20.0, 2: None}) == 1
    assert best_threads({1: None, 2: None}) == 1


def clocked(monkeypatch, meter, times, frames_per_event=100):
    """Call a meter at `times`; return at which of them it ended the process."""
    for index, now in enumerate(times):
        monkeypatch.setattr("bench.meter.time.time", lambda now=now: now)
        try:
            meter(frames_per_event * (index + 1))
        except SystemExit:
            return now
    return None


def test_a_meter_ends_after_warm_up_and_window(monkeypatch, capsys):
    ended = clocked(monkeypatch, Meter(seconds=5.0, warmup=3.0), [100.0 + index for index in range(20)])
    assert ended == 108.0
    points = points_of(capsys.readouterr().out)
    assert rates(points, warmup=3.0) == (100.0, 1.0)


def test_a_meter_that_is_called_often_writes_seldom_but_both_ends(monkeypatch, capsys):
    clocked(monkeypatch, Meter(seconds=1.0, warmup=0.5), [index / 1000 for index in range(3000)])
    points = points_of(capsys.readouterr().out)
    assert len(points) < 30
    assert [point.time for point in window(points, warmup=0.5)] == [0.5, 1.5]


def test_a_meter_ends_at_the_last_frame(monkeypatch, capsys):
    assert clocked(monkeypatch, Meter(1.0, 1.0, max_frame=500), [100.0 + index for index in range(20)]) == 104.0
    assert points_of(capsys.readouterr().out)[-1].frame == 500
