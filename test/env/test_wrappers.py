import gymnasium as gym
import numpy as np
import pytest
from conftest import random_actions, round_trip, same_step
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slm_lab.env.wrappers import Moments, resize_images
from slm_lab.lib.rng import derive_seed

PRIOR = 1e-4


@given(
    st.lists(
        st.integers(1, 5).flatmap(lambda n: hnp.arrays(np.float32, (n, 2), elements=st.floats(-100, 100, width=32))),
        min_size=1,
        max_size=8,
    )
)
def test_moments_in_pieces_are_those_of_the_whole(pieces):
    moments = Moments((2,))
    for piece in pieces:
        moments.update(piece)
    rows = np.concatenate(pieces).astype(np.float64)
    weight = len(rows) + PRIOR
    mean = rows.sum(0) / weight
    var = (((rows - mean) ** 2).sum(0) + PRIOR * (1 + mean**2)) / weight
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.var, var, rtol=1e-9, atol=1e-9)


def test_observations_are_normalised_as_by_gymnasium(build):
    env = build("Pendulum-v1", seed=5, normalize_obs=True, clip_obs=1.5)
    plain = gym.wrappers.NormalizeObservation(gym.make("Pendulum-v1"))
    obs, _ = plain.reset(seed=derive_seed(5, 0))
    np.testing.assert_allclose(env.reset()[0], np.clip(obs, -1.5, 1.5), atol=1e-5)
    seen = []
    for action in random_actions(env, 199):  # within one episode: gymnasium counts final observations too
        obs = plain.step(action[0] * 2)[0]
        np.testing.assert_allclose(env.step(action).obs[0], np.clip(obs, -1.5, 1.5), atol=1e-5)
        seen.append(obs)
    assert np.abs(seen).max() > 1.5


def test_the_moments_are_those_of_all_environments_without_final_observations(build):
    raw, env = build("CartPole-v1", num_envs=3), build("CartPole-v1", num_envs=3, normalize_obs=True)
    seen = [raw.reset()]
    env.reset()
    for action in random_actions(raw, 60):
        plain, step = raw.step(action), env.step(action)
        seen.append(plain.obs)
        rows = np.concatenate(seen).astype(np.float64)
        for shown, true in ((step.obs, plain.obs), (step.final_obs, plain.final_obs)):
            weight = len(rows) + PRIOR
            mean = rows.sum(0) / weight
            var = (((rows - mean) ** 2).sum(0) + PRIOR * (1 + mean**2)) / weight
            np.testing.assert_allclose(shown, (true - mean) / np.sqrt(var + 1e-8), rtol=1e-4, atol=1e-5)
    assert raw.stats.episodes > 2


def test_rewards_are_normalised_as_by_gymnasium(build):
    env = build("Pendulum-v1", seed=5, normalize_reward=True, clip_reward=3.0, how={"gamma": 0.9})
    plain = gym.wrappers.NormalizeReward(gym.make("Pendulum-v1"), gamma=0.9)
    plain.reset(seed=derive_seed(5, 0))
    env.reset()
    for action in random_actions(env, 200):  # one episode: gymnasium carries the last reward over into the next
        step = env.step(action)
        np.testing.assert_allclose(step.reward, [np.clip(plain.step(action[0] * 2)[1], -3, 3)], rtol=1e-5)
        assert step.reward.dtype == np.float32
    assert env.stats.total_reward < -500, "the statistics stay raw"


def test_the_return_of_a_vector_by_hand(build):
    env = build("counting_env:Counter", num_envs=3, normalize_reward=True, clip_reward=1e9, how={"gamma": 0.5})
    env.reset()
    # returns so far: step 1: 1; step 2: 0.5 + 2; then one is terminated, one truncated, one goes on: 11, 11, 1.25 + 3
    seen = np.array([1, 1, 1, 2.5, 2.5, 2.5, 11, 11, 4.25])
    for action, reward, count in (([0, 0, 0], [1, 1, 1], 3), ([1, 2, 0], [2, 2, 2], 6), ([0, 0, 0], [11, 11, 3], 9)):
        shown = env.step(np.array(action)).reward
        mean = seen[:count].sum() / (count + PRIOR)
        var = (((seen[:count] - mean) ** 2).sum() + PRIOR * (1 + mean**2)) / (count + PRIOR)
        np.testing.assert_allclose(shown, np.array(reward) / np.sqrt(var + 1e-8), rtol=1e-5)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 2, 13]),
        ({"reward_scale": 0.5}, [0.5, 1, 6.5]),
        ({"reward_scale": -2}, [-2, -4, -26]),
        ({"reward_scale": "sign"}, [1, 1, 1]),
        ({"clip_reward": 1.5}, [1, 1.5, 1.5]),
        ({"clip_reward": [2, 5]}, [2, 2, 5]),
        ({"clip_reward": "sign", "reward_scale": -1}, [-1, -1, -1]),
        ({"clip_reward": 4, "reward_scale": 3}, [3, 4, 4]),
    ],
    ids=str,
)
def test_rewards_are_scaled_then_clipped(build, keys, expected):
    env = build("counting_env:Counter", **keys)
    env.reset()
    rewards = [env.step(np.array([action])).reward for action in (0, 1, 0, 0, 0)]
    np.testing.assert_array_equal(np.concatenate([rewards[0], rewards[1], rewards[4]]), expected)
    assert all(reward.dtype == np.float32 for reward in rewards)
    assert env.stats.drain() == [(0, 3.0, 2)]


def test_observations_are_clipped(build):
    env = build("counting_env:Counter", clip_obs=2.0)
    env.reset()
    steps = [env.step(np.array([0])) for _ in range(4)]
    assert [step.obs[0, 1] for step in steps] == [1, 2, 2, 2]
    assert env.step(np.array([1])).final_obs.tolist() == [[0, 2]]
    assert env.obs_space.high.tolist() == [2, 2]


def test_frozen_normalisers_do_not_move(build):
    keys = {"num_envs": 2, "normalize_obs": True, "normalize_reward": True}
    env = build("Pendulum-v1", **keys)
    env.reset()
    actions = random_actions(env, 50)
    for action in actions:
        env.step(action)
    learned = round_trip(env.normalizer_state())
    test = build("Pendulum-v1", seed=9, how={"training": False}, **keys)
    test.load_normalizers(env.normalizer_state())
    raw = build("Pendulum-v1", seed=9, num_envs=2)
    test.reset(), raw.reset()
    obs, reward = learned["normalize_obs"], learned["normalize_reward"]
    for action in actions:
        shown, true = test.step(action), raw.step(action)
        expected = (true.obs - obs["mean"]) / np.sqrt(obs["var"])
        np.testing.assert_allclose(shown.obs, np.clip(expected, -10, 10), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(shown.reward, true.reward / np.sqrt(reward["var"]), rtol=1e-5)
    for key, moments in test.normalizer_state().items():
        assert moments["count"] == learned[key]["count"] == env.normalizer_state()[key]["count"]


def test_a_state_of_normalisers_is_a_copy(build):
    env = build("Pendulum-v1", normalize_obs=True, normalize_reward=True)
    env.reset()
    state = env.normalizer_state()
    before = round_trip(state)
    for action in random_actions(env, 5):
        env.step(action)
    for key in before:
        np.testing.assert_array_equal(state[key]["mean"], before[key]["mean"])
        assert not np.array_equal(env.normalizer_state()[key]["mean"], before[key]["mean"])


@pytest.mark.parametrize("op", ["stack", "concat"])
def test_stacks_slide_within_an_episode_and_never_across(build, op):
    raw = build("CartPole-v1", num_envs=3)
    env = build("CartPole-v1", num_envs=3, frame_op=op, frame_op_len=4)
    assert env.frame_stack == 4
    assert env.obs_space.shape == ((4, 4) if op == "stack" else (16,))
    first, obs = raw.reset(), env.reset().reshape(3, 4, 4)
    np.testing.assert_array_equal(obs[:, 3], first)
    assert not obs[:, :3].any()
    for action in random_actions(env, 80):
        plain, step = raw.step(action), env.step(action)
        done = step.terminated | step.truncated
        final, following = step.final_obs.reshape(3, 4, 4), step.obs.reshape(3, 4, 4)
        np.testing.assert_array_equal(final[:, :3], obs[:, 1:])
        np.testing.assert_array_equal(final[:, 3], plain.final_obs)
        np.testing.assert_array_equal(following[:, 3], plain.obs)
        np.testing.assert_array_equal(following[~done], final[~done])
        assert not following[done, :3].any()
        assert env.obs_space.contains(step.obs[0])
        obs = following
    assert env.stats.episodes > 5


def test_everything_at_once_is_restored(build):
    keys = {
        "num_envs": 2,
        "normalize_obs": True,
        "normalize_reward": True,
        "frame_op": "stack",
        "frame_op_len": 3,
        "max_t": 17,
        "reward_scale": 0.1,
    }
    env = build("CartPole-v1", **keys)
    env.reset()
    actions = random_actions(env, 100)
    for action in actions[:40]:
        env.step(action)
    state = round_trip(env.state_dict())
    again = build("CartPole-v1", **keys)
    assert again.load_state_dict(state)
    np.testing.assert_array_equal(again.obs, env.obs)
    for action in actions[40:]:
        assert same_step(again.step(action), env.step(action))
    assert again.stats.drain() == env.stats.drain()


def test_pictures_are_resized_by_area():
    images = np.array([[[[0, 100, 200], [100, 200, 44]]]], np.uint8)  # [1, 1, 2, 3]
    assert resize_images((1, 2, 3), (1, 1))(images).tolist() == [[[[107]]]]
    # each new column covers one and a half old ones
    assert resize_images((1, 2, 3), (2, 2))(images).tolist() == [[[[33, 167], [133, 96]]]]
    np.testing.assert_array_equal(resize_images((1, 2, 3), (2, 3))(images), images)


def test_pictures_come_channels_first_resized_and_stacked(build):
    raw = build("counting_env:Picture")
    obs = raw.reset()
    assert (obs.shape, obs.dtype, raw.obs_space.shape) == ((1, 3, 6, 9), np.uint8, (3, 6, 9))
    assert obs[0, :, 0, 1].tolist() == [3, 4, 5]
    env = build("counting_env:Picture", image_downsize=[3, 3], frame_op="concat", frame_op_len=2)
    obs = env.reset()
    assert (obs.shape, obs.dtype, env.obs_space.shape) == ((1, 6, 3, 3), np.uint8, (6, 3, 3))
    assert not obs[0, :3].any()
    # the mean over the upper left 2 x 3 pixels of channel 0: 0 3 6 27 30 33
    assert obs[0, 3, 0, 0] == 16
