"""Cart-poles in one set of arrays: the same dynamics and the same contract as one environment after another."""

import gymnasium as gym
import numpy as np
import pytest
from conftest import assert_steps_stay, random_actions, round_trip, same_step, same_tree

from slm_lab.env.gym_backend import GymVecEnv
from slm_lab.env.native_backend import FROM_ENVS, CartPoleVecEnv
from slm_lab.env.vec_env import Step

NAME = "CartPole-v1"


@pytest.fixture
def poles(build):
    def make(num_envs=FROM_ENVS, seed=0, **keys):
        env = build(NAME, seed, num_envs=num_envs, **keys)
        assert type(env) is CartPoleVecEnv
        return env

    return make


@pytest.mark.parametrize(
    "keys",
    [
        {"num_envs": FROM_ENVS - 1},
        {"backend": "gymnasium"},
        {"sutton_barto_reward": True},
        {"how": {"render_mode": "rgb_array"}},
    ],
)
def test_where_a_loop_is_faster_or_asked_for_or_can_do_more_it_is_a_loop(build, keys):
    assert type(build(NAME, **{"num_envs": FROM_ENVS, **keys})) is GymVecEnv


def test_every_step_is_that_of_single_environments(poles):
    env, single = poles(max_t=40), gym.make(NAME).unwrapped
    single.reset()
    obs, length, ends = env.reset(), np.zeros(env.num_envs, int), 0
    low, high = env.obs_space.low, env.obs_space.high
    for action in random_actions(env, 200):
        states = env._env.state.T.copy()
        step = env.step(action)
        length += 1
        for i, state in enumerate(states):
            single.state, single.steps_beyond_terminated = tuple(state), None
            final, reward, terminated, *_ = single.step(int(action[i]))
            np.testing.assert_allclose(step.final_obs[i], final, rtol=1e-6, atol=1e-7)
            assert (step.reward[i], step.terminated[i]) == (reward, terminated)
            assert step.truncated[i] == (length[i] == 40)
            if terminated or length[i] == 40:
                ends, length[i] = ends + 1, 0
                assert (np.abs(step.obs[i]) <= 0.05).all()  # a first observation
                assert (step.obs[i] != final).any()
            else:
                np.testing.assert_array_equal(step.obs[i], step.final_obs[i])
        assert ((low <= step.obs) & (step.obs <= high)).all()
        assert env.obs is step.obs
        obs = step.obs
    assert obs.dtype == np.float32
    assert env.stats.episodes == ends > 20
    np.testing.assert_array_equal(env.stats.running_length, length)


def test_the_dynamics_are_those_of_gymnasiums_vector_to_the_bit(poles):
    env, vector = poles(num_envs=16), gym.make_vec(NAME, 16, vectorization_mode="vector_entry_point").unwrapped
    env.reset()
    vector.reset()
    for action in random_actions(env, 100):
        vector.state, vector.prev_done[:], vector.steps[:] = env._env.state.copy(), False, env._env.steps
        step, (obs, reward, terminated, truncated, _) = env.step(action), vector.step(action)
        assert same_step(step._replace(obs=step.final_obs), Step(obs, reward, terminated, truncated, obs))


def test_a_step_is_not_written_to_by_the_next(poles):
    assert_steps_stay(poles())


def test_a_restored_one_goes_on_as_if_never_interrupted(poles):
    env, other = poles(), poles(seed=1)
    env.reset()
    for action in random_actions(env, 50):
        env.step(action)
    state = round_trip(env.state_dict())
    assert other.load_state_dict(state)
    np.testing.assert_array_equal(other.obs, env.obs)
    for action in random_actions(env, 100, seed=1):
        assert same_step(env.step(action), other.step(action))
    assert same_tree(env.state_dict(), other.state_dict())
    assert env.stats.drain() == other.stats.drain()


def test_the_seed_decides_everything_and_a_second_reset_begins_other_episodes(poles):
    env, again, other = poles(seed=3), poles(seed=3), poles(seed=4)
    first = env.reset().copy()
    np.testing.assert_array_equal(again.reset(), first)
    assert (other.reset() != first).all()
    assert (env.reset() != first).all()
    for action in random_actions(env, 50):
        env.step(action)
    env.reset()
    assert (env.stats.running_length == 0).all()


@pytest.mark.parametrize(("old", "new"), [("auto", "gymnasium"), ("gymnasium", "auto")])
def test_from_a_state_of_the_other_backend_fresh_episodes_begin(build, old, new):
    one, other = (build(NAME, num_envs=FROM_ENVS, backend=backend) for backend in (old, new))
    one.reset()
    for action in random_actions(one, 50):
        one.step(action)
    assert not other.load_state_dict(round_trip(one.state_dict()))
    assert other.stats.episodes == one.stats.episodes > 0
    assert (other.stats.running_length == 0).all()
    assert other.obs.shape == one.obs.shape
