"""Cost per frame and growth of memory."""

import pytest

from bench import scale
from bench.sides import installed


def test_the_cost_is_of_the_frames_since_the_warm_up():
    points = [(0, 10.0, 0), (100, 19.0, 0), (200, 20.0, 0), (400, 20.5, 0), (1200, 22.0, 0)]
    assert scale.cost(points, 150) == pytest.approx(1e6 * 2.0 / 1000)


def test_growth_is_the_slope_after_the_first_quarter(monkeypatch):
    monkeypatch.setattr(scale, "FLAT_FRAMES", 1000)
    points = [[0, 0, 10e6], [200, 0, 90e6], [400, 0, 100e6], [600, 0, 102e6], [1000, 0, 106e6]]
    monkeypatch.setattr(scale, "in_a_process", lambda *_: points)
    assert scale.memory() == {"resident": 106.0, "growth": pytest.approx(0.01 * 1e6)}


@pytest.mark.slow
@pytest.mark.skipif(not installed("psutil"), reason="psutil is of the dependency group bench")
def test_one_measurement_is_a_real_session():
    changes = {"env.max_frame": 6000, "env.num_envs": 8}
    points = scale.in_a_process("ppo", "ppo_cartpole", changes)
    frames, seconds, resident = zip(*points, strict=True)
    assert frames[-1] == 6000
    assert list(frames) == sorted(frames)
    assert list(seconds) == sorted(seconds)
    assert all(100e6 < size < 2e9 for size in resident)
