import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.clock import Clock, crossed, previous_crossing


def test_a_frame_is_a_step_of_one_environment():
    clock = Clock()
    for _ in range(3):
        clock.tick(num_envs=4)
    assert (clock.t, clock.frame) == (3, 12)


def test_goes_on_counting_where_it_was_saved():
    clock = Clock()
    clock.tick(4)
    clock.opt_step = 7
    clock.wall_t = 100.0
    state = clock.state_dict()
    other = Clock()
    other.load_state_dict(state)
    assert (other.t, other.frame, other.opt_step) == (1, 4, 7)
    before = other.elapsed
    time.sleep(0.02)
    assert 100.0 <= before < other.elapsed < 101.0


@pytest.mark.parametrize(
    ("frame", "step", "every", "expected"),
    [(100, 4, 100, True), (104, 4, 100, False), (104, 8, 100, True), (96, 8, 100, False), (8, 8, 1, True)],
)
def test_crossed_by_hand(frame, step, every, expected):
    assert crossed(frame, step, every) is expected


@given(step=st.integers(1, 64), every=st.integers(1, 500), count=st.integers(1, 200))
def test_every_multiple_is_crossed_once(step, every, count):
    frames = [step * index for index in range(1, count + 1)]
    passed = {frame // every for frame in frames if crossed(frame, step, every)}
    assert len([frame for frame in frames if crossed(frame, step, every)]) == len(passed)
    assert (frames[-1] // every in passed) or frames[-1] < every


@given(step=st.integers(1, 16), every=st.integers(1, 50), count=st.integers(1, 60))
def test_previous_crossing_is_the_one_before(step, every, count):
    crossings = [step * index for index in range(1, count + 1) if crossed(step * index, step, every)]
    for earlier, later in zip([0, *crossings], crossings, strict=False):
        assert previous_crossing(later, step, every) == earlier
