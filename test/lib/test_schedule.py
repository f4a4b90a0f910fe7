import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.schedule import make_schedule

DECAYS = ["linear_decay", "rate_decay", "periodic_decay"]


@pytest.mark.parametrize(
    ("name", "frame", "value"),
    [
        ("no_decay", 0, 1.0),
        ("no_decay", 10**9, 1.0),
        ("linear_decay", 100, 1.0),
        ("linear_decay", 150, 0.75),
        ("linear_decay", 200, 0.5),
        ("linear_decay", 300, 0.0),
        ("rate_decay", 200, (0.9**10 - 0.9**20) / (1 - 0.9**20)),
        ("periodic_decay", 110, 0.0),  # half of the first of ten waves
        ("periodic_decay", 120, 0.9),  # one whole wave
    ],
)
def test_values_by_hand(name, frame, value):
    schedule = make_schedule(name, start_val=1.0, end_val=0.0, start_step=100, end_step=300)
    assert schedule(frame) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", DECAYS)
def test_begins_at_start_val_and_ends_at_end_val(name):
    schedule = make_schedule(name, start_val=0.9, end_val=0.1, start_step=100, end_step=300)
    assert [schedule(frame) for frame in (0, 100)] == [0.9, 0.9]
    assert [schedule(frame) for frame in (300, 10**9)] == [pytest.approx(0.1)] * 2


@pytest.mark.parametrize("name", DECAYS)
@given(frame=st.integers(0, 1000), start=st.floats(-5, 5), end=st.floats(-5, 5))
def test_stays_between_its_ends(name, frame, start, end):
    value = make_schedule(name, start, end, 100, 300)(frame)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9


def test_a_decay_needs_its_end():
    with pytest.raises(ValueError, match="linear_decay needs end_val"):
        make_schedule("linear_decay", 1.0)
