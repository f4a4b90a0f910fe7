import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from hand import OBS

from slm_lab.agent.algorithm import Setting, make_algorithm
from slm_lab.spec import AgentSpec

N = 6000


def draw(space, seed=0):
    setting = Setting(OBS, space, N, 1, seed, torch.device("cpu"))
    algorithm = make_algorithm(AgentSpec.model_validate({"algorithm": {"name": "Random"}}), setting)
    return algorithm.act(np.zeros((N, 1), np.float32), 0)


@pytest.mark.parametrize(
    ("space", "shares"),
    [  # of every value of every choice
        (Discrete(3), [[1 / 3] * 3]),
        (MultiDiscrete([2, 4]), [[1 / 2] * 2, [1 / 4] * 4]),
        (MultiBinary(2), [[1 / 2] * 2, [1 / 2] * 2]),
    ],
)
def test_every_choice_is_as_likely(space, shares):
    actions = draw(space)
    assert actions.shape == (N, *(space.shape or ()))
    for column, expected in zip(actions.reshape(N, -1).T, shares, strict=True):
        assert np.bincount(column) / N == pytest.approx(expected, abs=0.025)


def test_bounded_actions_fill_the_box():
    actions = draw(Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 6.0], np.float32)))
    assert actions.dtype == np.float32
    assert actions.min(0) == pytest.approx([-1, 2], abs=0.01)
    assert actions.max(0) == pytest.approx([1, 6], abs=0.01)
    assert actions.mean(0) == pytest.approx([0, 4], abs=0.1)


def test_unbounded_actions_are_standard_normal():
    actions = draw(Box(-np.inf, np.inf, (2,), np.float32))
    assert actions.mean(0) == pytest.approx([0, 0], abs=0.05)
    assert actions.std(0) == pytest.approx([1, 1], abs=0.05)


def test_the_seed_decides():
    assert (draw(Discrete(9), 1) == draw(Discrete(9), 1)).all()
    assert (draw(Discrete(9), 1) != draw(Discrete(9), 2)).any()
