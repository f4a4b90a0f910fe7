"""The contract, on environments of which every transition is known, by every way there is to them."""

import gymnasium as gym
import numpy as np
import pytest
from conftest import random_actions, round_trip, same_step, same_tree
from counting_env import Counter
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_lab.env.gym_backend import GymVecEnv
from slm_lab.env.vec_env import EpisodeStats
from slm_lab.lib.rng import derive_seed
from slm_lab.spec import SpecError

F, T = False, True
# actions -> obs, reward, terminated, truncated, final_obs
TABLE = [
    ([0, 0], [[0, 1], [0, 1]], [1, 1], [F, F], [F, F], [[0, 1], [0, 1]]),
    ([1, 0], [[1, 0], [0, 2]], [2, 2], [T, F], [F, F], [[0, 2], [0, 2]]),
    ([0, 2], [[1, 1], [1, 0]], [11, 3], [F, F], [F, T], [[1, 1], [0, 3]]),
    ([0, 0], [[1, 2], [1, 1]], [12, 11], [F, F], [F, F], [[1, 2], [1, 1]]),
    ([3, 3], [[2, 0], [2, 0]], [13, 12], [T, T], [T, T], [[1, 3], [1, 2]]),
    ([0, 0], [[2, 1], [2, 1]], [21, 21], [F, F], [F, F], [[2, 1], [2, 1]]),
    ([1, 0], [[3, 0], [2, 2]], [22, 22], [T, F], [F, F], [[2, 2], [2, 2]]),
]
EPISODES = [(0, 3.0, 2), (1, 6.0, 3), (0, 36.0, 3), (1, 23.0, 2), (0, 43.0, 2)]
WAYS = {
    "class": ("counting_env:Counter", {}),
    "function": ("counting_env:make_counter", {}),
    "registered": ("test/Counter-v3", {"max_episode_steps": 100}),
    "registered by its module": ("counting_env:test/Counter-v3", {"max_episode_steps": 100}),
    "other first action": ("counting_env:Counter", {"start": 5}),
    "gymnasium's wrappers": ("counting_env:Counter", {"wrappers": [{"id": "TimeLimit", "max_episode_steps": 100}]}),
    "clipped far out": ("counting_env:Counter", {"clip_obs": 1e6, "clip_reward": 1e6}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_array_of_every_step(build, way):
    name, keys = WAYS[way]
    env = build(name, num_envs=2, **keys)
    np.testing.assert_array_equal(env.reset(), [[0, 0], [0, 0]])
    for action, obs, reward, terminated, truncated, final_obs in TABLE:
        step = env.step(np.array(action))
        np.testing.assert_array_equal(step.obs, obs)
        np.testing.assert_array_equal(step.reward, reward)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
        np.testing.assert_array_equal(step.final_obs, final_obs)
        assert [array.dtype.name for array in step] == ["float32", "float32", "bool", "bool", "float32"]
        assert (step.final_obs is step.obs) == (not any(terminated + truncated))
        assert env.obs is step.obs
    assert env.stats.drain() == EPISODES
    assert env.stats.drain() == []
    assert (env.stats.episodes, env.stats.total_reward) == (5, (3 + 6 + 36 + 23 + 43) / 5)


def test_a_step_is_not_written_to_by_the_next(build):
    env = build("counting_env:Counter", num_envs=2)
    steps = [env.reset(), *(array for row in TABLE for array in env.step(np.array(row[0])))]
    kept = [array.copy() for array in steps]
    for action in random_actions(env, 20):
        env.step(action)
    for array, copy in zip(steps, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("keys", "limit"),
    [({"max_t": 2}, 2), ({}, 3), ({"max_t": 5}, 3), ({"max_t": 5, "max_episode_steps": 9}, 5)],
    ids=["own, shorter", "environment's", "own, longer", "environment's raised"],
)
def test_the_time_limit_truncates(build, keys, limit):
    env = build("test/Counter-v3", num_envs=1, **keys)
    env.reset()
    truncated = [bool(env.step(np.array([0])).truncated[0]) for _ in range(3 * limit)]
    assert truncated == ([F] * (limit - 1) + [T]) * 3


@settings(deadline=None, max_examples=50)
@given(
    actions=st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=3, max_size=3), min_size=1, max_size=40),
    limit=st.none() | st.integers(1, 6),
)
def test_equals_gymnasium_one_by_one(actions, limit):
    vector = GymVecEnv([Counter() for _ in range(3)], seed=0, name="Counter", time_limit=limit)
    singles = [gym.wrappers.TimeLimit(Counter(), limit or 10**6) for _ in range(3)]
    np.testing.assert_array_equal(vector.reset(), [env.reset()[0] for env in singles])
    finished, running = [], [[] for _ in singles]
    for action in actions:
        step = vector.step(np.array(action))
        for i, (env, act) in enumerate(zip(singles, action, strict=True)):
            final, reward, terminated, truncated, _ = env.step(act)
            running[i].append(reward)
            assert (step.reward[i], step.terminated[i], step.truncated[i]) == (reward, terminated, truncated)
            np.testing.assert_array_equal(step.final_obs[i], final)
            if terminated or truncated:
                finished.append((i, sum(running[i]), len(running[i])))
                running[i], final = [], env.reset()[0]
            np.testing.assert_array_equal(step.obs[i], final)
    assert vector.stats.drain() == finished


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_equals_a_plain_environment_over_episodes(build, name):
    env = build(name, seed=3, num_envs=2)
    plain = gym.make(name)
    obs, _ = plain.reset(seed=derive_seed(3, 1))
    np.testing.assert_array_equal(env.reset()[1], obs)
    total, returns = 0.0, []
    for action in random_actions(env, 450):
        step = env.step(action)
        # the agent's [-1, 1] is Pendulum's [-2, 2]
        obs, reward, terminated, truncated, _ = plain.step(action[1] * 2 if name == "Pendulum-v1" else action[1])
        total += reward
        np.testing.assert_array_equal(step.final_obs[1], obs)
        assert step.reward[1] == np.float32(reward)
        if terminated or truncated:
            returns.append(total)
            total, (obs, _) = 0.0, plain.reset()
        np.testing.assert_array_equal(step.obs[1], obs)
    assert returns
    assert [episode.total_reward for episode in env.stats.drain() if episode.env == 1] == returns


FAMILIES = {
    "CartPole-v1": 60,
    "Acrobot-v1": 60,
    "Pendulum-v1": 230,
    "MountainCarContinuous-v0": 30,
    "LunarLander-v3": 100,
    "BipedalWalker-v3": 150,
    "Ant-v5": 60,
    "InvertedDoublePendulum-v5": 60,
    "ALE/Breakout-v5": 150,
    "FrozenLake-v1": 20,
    "counting_env:Walk": 20,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_replayed_it_goes_on_as_if_never_interrupted(build, name):
    env = build(name, num_envs=2)
    env.reset()
    before = random_actions(env, FAMILIES[name])
    after = random_actions(env, 150, seed=1)
    for action in before:
        env.step(action)
    state = round_trip(env.state_dict())
    steps = [env.step(action) for action in after]
    again = build(name, num_envs=2)
    assert again.load_state_dict(state) is True
    np.testing.assert_array_equal(again.obs, state["obs"])
    for action, step in zip(after, steps, strict=True):
        assert same_step(again.step(action), step)
    assert again.stats.drain() == env.stats.drain()
    assert same_tree(again.state_dict(), env.state_dict())


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "HalfCheetah-v5", "ALE/Breakout-v5"])
def test_the_seed_decides_everything(build, name):
    runs = []
    for seed in (1, 1, 2):
        env = build(name, seed=seed, num_envs=2)
        obs = [env.reset(), *(env.step(action).obs for action in random_actions(env, 30))]
        runs.append(np.stack(obs))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0][:, 0], runs[0][:, 1])


def test_a_state_right_after_reset_is_restored(build):
    env = build("CartPole-v1", num_envs=2)
    first = env.reset()
    again = build("CartPole-v1", num_envs=2)
    assert again.load_state_dict(round_trip(env.state_dict()))
    np.testing.assert_array_equal(again.obs, first)
    assert same_step(again.step(np.array([0, 1])), env.step(np.array([0, 1])))


def test_a_second_reset_begins_other_episodes(build):
    env = build("CartPole-v1", num_envs=2)
    first = env.reset()
    env.step(np.array([0, 0]))
    assert not np.array_equal(env.reset(), first)
    assert env.stats.running_length.tolist() == [0, 0]
    assert env.stats.drain() == []


def test_what_cannot_be_replayed_begins_afresh_and_says_so(build):
    env = build("counting_env:Unseeded", num_envs=2, normalize_obs=True)
    env.reset()
    while env.stats.episodes < 3 or not env.stats.running_length.all():
        env.step(np.zeros((2, 1), np.float32))
    state = round_trip(env.state_dict())
    again = build("counting_env:Unseeded", num_envs=2, normalize_obs=True)
    assert again.load_state_dict(state) is False
    assert again.stats.episodes == env.stats.episodes
    assert again.stats.total_reward == env.stats.total_reward
    assert again.stats.running_length.tolist() == [0, 0]
    # the first observations of the fresh episodes count like any others
    counts = [other.normalizer_state()["normalize_obs"]["count"] for other in (again, env)]
    assert counts[0] == counts[1] + 2
    assert again.obs.shape == (2, 1)
    assert not np.array_equal(again.obs, env.obs)
    step = again.step(np.zeros((2, 1), np.float32))
    assert again.stats.running_length.tolist() == (~step.terminated).tolist()


def test_rewards_that_come_out_otherwise_are_noticed(build):
    env = build("counting_env:Lottery")
    env.reset()
    for _ in range(3):
        env.step(np.array([0]))
    assert build("counting_env:Lottery").load_state_dict(round_trip(env.state_dict())) is False


def test_an_episode_too_long_to_keep_is_not_restored(build, monkeypatch):
    monkeypatch.setattr("slm_lab.env.gym_backend.MAX_REPLAY", 5)
    env = build("counting_env:Counter", num_envs=1)
    env.reset()
    for _ in range(5):
        env.step(np.array([0]))
    assert build("counting_env:Counter", num_envs=1).load_state_dict(round_trip(env.state_dict()))
    env.step(np.array([0]))
    assert not build("counting_env:Counter", num_envs=1).load_state_dict(round_trip(env.state_dict()))


def test_only_the_actions_since_the_oldest_beginning_are_kept(build):
    env = build("counting_env:Counter", num_envs=2)
    env.reset()
    for action in [[0, 0], [0, 0], [1, 0], [0, 0], [0, 1], [0, 0]]:
        env.step(np.array(action))
    envs = env.state_dict()["envs"]
    assert envs["0"]["actions"].tolist() == [0, 0, 0]
    assert envs["1"]["actions"].tolist() == [0]
    assert len(env._actions) <= 4, "what no replay needs is dropped when an episode ends"


def test_total_reward_is_the_mean_of_the_last_hundred():
    stats = EpisodeStats(1)
    assert np.isnan(stats.total_reward)
    for reward in range(150):
        stats.add(np.array([reward]))
        stats.finish([0])
    assert stats.total_reward == np.mean(np.arange(50, 150))
    stats.window = 25
    assert stats.total_reward == np.mean(np.arange(125, 150))
    stats.window = 100
    other = EpisodeStats(1)
    other.load_state_dict(round_trip(stats.state_dict()))
    assert (other.total_reward, other.episodes) == (stats.total_reward, 150)
    assert other.drain() == stats.drain()
    assert len(stats.drain()) == 0


def test_the_picture_is_of_the_first_environment(build):
    env = build("CartPole-v1", num_envs=2, how={"render_mode": "rgb_array"})
    env.reset()
    picture = env.render()
    assert picture.shape == (400, 600, 3)
    assert picture.dtype == np.uint8
    for _ in range(5):
        env.step(np.array([0, 0]))
    assert not np.array_equal(env.render(), picture)
    plain = build("CartPole-v1")
    plain.reset()
    assert plain.render() is None


def test_a_renderer_that_fails_is_one_error(build):
    env = build("counting_env:Counter", how={"render_mode": "rgb_array"})
    env.reset()
    with pytest.raises(SpecError, match=r"Counter cannot be drawn here \(RuntimeError: no graphics card"):
        env.render()
    env.step(np.array([0]))
    assert env.render().shape == (2, 3, 3)


def test_a_window_needs_a_display(build, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(SpecError, match="no display"):
        build("CartPole-v1", how={"render_mode": "human"})
