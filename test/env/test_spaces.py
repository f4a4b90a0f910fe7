import gymnasium as gym
import numpy as np
import pytest
from conftest import spec
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text

from slm_lab.env import make_spaces
from slm_lab.env.spaces import lab_action_space, lab_obs_space
from slm_lab.spec import SpecError


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (Discrete(4), 2, [0, 0, 1, 0]),
        (Discrete(3, start=-1), -1, [1, 0, 0]),
        (MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
        (MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
        (Box(-1, 1, (), np.float64), np.float64(0.5), [0.5]),
        (Box(0, 9, (2,), np.int64), np.array([3, 9]), [3, 9]),
        (Box(-np.inf, np.inf, (1, 2), np.float64), np.array([[0.1, 1e300]]), [[np.float32(0.1), np.inf]]),
    ],
    ids=str,
)
def test_observations_become_float32(space, obs, expected):
    lab, convert = lab_obs_space(space, "env")
    row = np.empty(lab.shape, lab.dtype)
    with np.errstate(over="ignore"):
        row[...] = obs if convert is None else convert(obs)
    assert row.dtype == np.float32
    assert row.tolist() == expected
    assert lab.contains(row) or np.isinf(row).any()


def test_uint8_stays():
    assert lab_obs_space(Box(0, 255, (4, 84, 84), np.uint8), "env")[0].shape == (4, 84, 84)
    assert lab_obs_space(Box(0, 255, (128,), np.uint8), "env")[0].dtype == np.uint8
    space, convert = lab_obs_space(Box(0, 255, (84, 96, 1), np.uint8), "env")
    assert space.shape == (1, 84, 96)
    assert convert(np.zeros((84, 96, 1), np.uint8)).shape == (1, 84, 96)


def test_bounds_beyond_float32_are_none():
    space, _ = lab_obs_space(Box(-1e300, 1e300, (2,), np.float64), "env")
    assert space.high.tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("space", [Dict(a=Discrete(2)), gym.spaces.Tuple([Discrete(2)]), Text(3)], ids=str)
def test_what_is_not_one_array_is_an_error_with_the_remedy(space):
    with pytest.raises(SpecError, match=r"env\.name: MyEnv has observations .*FlattenObservation"):
        lab_obs_space(space, "MyEnv")


def test_bounded_actions_are_rescaled_and_clipped():
    low, high = np.array([-2, 0], np.float32), np.array([2, 10], np.float32)
    lab, convert = lab_action_space(Box(low, high), "env")
    assert lab == Box(-1, 1, (2,), np.float32)
    action = np.array([[-1, -1], [0, 0], [1, 1], [-9, 9], [0.5, -0.5]], np.float32)
    actual = convert(action)
    np.testing.assert_allclose(actual, [[-2, 0], [0, 5], [2, 10], [-2, 10], [1, 2.5]])
    assert actual.dtype == np.float32


def test_the_bounds_are_reached_and_never_passed():
    rng = np.random.default_rng(0)
    low = rng.normal(size=1000).astype(np.float32)
    space = Box(low, low + rng.random(1000, np.float32) * 10)
    _, convert = lab_action_space(space, "env")
    for action in (-1, 1):
        assert space.contains(convert(np.full((1, 1000), action, np.float32))[0])


def test_unit_bounds_are_clipped_only():
    _, convert = lab_action_space(Box(-1, 1, (2,), np.float32), "env")
    action = np.array([[0.3, -3.0]], np.float32)
    assert convert(action).tolist() == [[np.float32(0.3), -1]]
    assert action[0, 1] == -3, "the agent's action is left as it is"


def test_half_bounded_actions_keep_their_scale():
    space = Box(np.array([0, -np.inf], np.float32), np.array([np.inf, np.inf], np.float32))
    lab, convert = lab_action_space(space, "env")
    assert lab == space
    assert convert(np.array([[-5, -5]], np.float32)).tolist() == [[0, -5]]


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (Discrete(3, start=5), [0, 2], [5, 7]),
        (MultiDiscrete([2, 3], start=[1, -1]), [[0, 2], [1, 0]], [[1, 1], [2, -1]]),
        (MultiBinary(2), [[0, 1], [1, 1]], [[0, 1], [1, 1]]),
    ],
    ids=str,
)
def test_choices_are_counted_from_zero(space, action, expected):
    lab, convert = lab_action_space(space, "env")
    assert all(lab.contains(np.asarray(row, lab.dtype)) for row in action)
    assert convert(np.array(action)).tolist() == expected


def test_actions_that_no_algorithm_can_choose():
    for space in (Dict(a=Discrete(2)), Box(0, 5, (1,), np.int64)):
        with pytest.raises(SpecError, match=r"env\.name: MyEnv has actions"):
            lab_action_space(space, "MyEnv")


def test_several_choices_reach_the_environment_together(build):
    env = build("counting_env:Picture", num_envs=2)
    env.reset()
    env.step(np.array([[1, 2], [0, 1]]))
    assert [single.actions for single in env.envs] == [[[1, 2]], [[0, 1]]]


@pytest.mark.parametrize(
    ("name", "keys", "obs_shape", "action_space"),
    [
        ("CartPole-v1", {}, (4,), Discrete(2)),
        ("Pendulum-v1", {"frame_op": "stack", "frame_op_len": 4}, (4, 3), Box(-1, 1, (1,), np.float32)),
        ("FrozenLake-v1", {}, (16,), Discrete(4)),
        ("LunarLander-v3", {"continuous": True}, (8,), Box(-1, 1, (2,), np.float32)),
        ("ALE/Pong-v5", {}, (4, 84, 84), Discrete(6)),
        ("counting_env:Parts", {"wrappers": [{"id": "FlattenObservation"}]}, (5,), Discrete(2)),
    ],
)
def test_spaces_of_a_spec(name, keys, obs_shape, action_space):
    obs, action = make_spaces(spec(name, **keys))
    assert obs.shape == obs_shape
    assert action == action_space
