import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slm_lab.agent.algorithm.scale import PercentileRange, RunningStd

batches = st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=5)


@given(batches=batches)
def test_the_deviation_is_that_of_all_values_at_once(batches):
    running = RunningStd()
    for batch in batches:
        scale = running.update(torch.tensor(batch))
    everything = torch.tensor([x for batch in batches for x in batch], dtype=torch.float64)
    assert_close(scale, everything.std(correction=0).clamp_min(1.0).float(), rtol=1e-5, atol=1e-6)
    assert_close(running.mean, everything.mean(), rtol=1e-9, atol=1e-6)


def test_small_values_are_not_blown_up():
    assert RunningStd().update(torch.tensor([[0.1], [0.2]])) == 1.0
    assert RunningStd().update(torch.tensor([7.0])) == 1.0
    assert PercentileRange().update(torch.tensor([0.1, 0.2])) == 1.0


def test_the_range_by_hand():
    running = PercentileRange()
    steps = torch.arange(101.0)
    assert_close(running.update(steps).item(), 90.0)  # the first counts in full
    assert_close(running.update(3 * steps).item(), (0.99 * 90 + 270) / 1.99, rtol=1e-5, atol=0)


def test_an_outlier_does_not_move_the_range():
    values = torch.arange(101.0)
    values[-1] = 1e6
    assert_close(PercentileRange().update(values).item(), 90.0)


@pytest.mark.parametrize("make", [RunningStd, PercentileRange])
def test_what_was_seen_is_its_state(make):
    one, other = make(), make()
    one.update(torch.arange(50.0))
    other.load_state_dict(one.state_dict())
    assert one.update(torch.arange(9.0)) == other.update(torch.arange(9.0)) != make().update(torch.arange(9.0))
