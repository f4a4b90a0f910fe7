"""Environments of envpool: the same dynamics as gymnasium's, and the lab's contract."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from conftest import assert_steps_stay, random_actions, round_trip

from slm_lab.env.envpool_backend import SAME_AS_GYMNASIUM, EnvpoolVecEnv
from slm_lab.env.gym_backend import GymVecEnv
from slm_lab.spec import SpecError


def angle(cos, sin):
    return np.arctan2(sin, cos)


STATES = {
    "CartPole-v1": lambda o: o,
    "Pendulum-v1": lambda o: [angle(o[0], o[1]), o[2]],
    "Acrobot-v1": lambda o: [angle(o[0], o[1]), angle(o[2], o[3]), o[4], o[5]],
    "MountainCar-v0": lambda o: o,
    "MountainCarContinuous-v0": lambda o: o,
    "HalfCheetah-v5": lambda o: ([0, *o[:8]], o[8:]),
    "Hopper-v5": lambda o: ([0, *o[:5]], o[5:]),
    "Swimmer-v5": lambda o: ([0, 0, *o[:3]], o[3:]),
    "InvertedPendulum-v5": lambda o: (o[:2], o[2:]),
    "InvertedDoublePendulum-v5": lambda o: ([o[0], angle(o[3], o[1]), angle(o[4], o[2])], o[5:8]),
}
"""The state that an observation stands for: of MuJoCo, positions (the place is not shown and does not matter) and
velocities."""
SHOWN = {"Hopper-v5": 10, "InvertedDoublePendulum-v5": 10}
"""Velocities are not shown beyond."""


def put(single, name, obs):
    state = STATES[name](np.asarray(obs, np.float64))
    if name.endswith("-v5"):
        single.set_state(*map(np.array, state))
    else:
        single.state, single.steps_beyond_terminated = np.array(state), None


@pytest.fixture
def pool(build):
    pytest.importorskip("envpool")

    def make(name, seed=0, **keys):
        env = build(name, seed, backend="envpool", **keys)
        assert type(env) is EnvpoolVecEnv
        return env

    return make


def test_all_are_compared():
    assert set(STATES) == set(SAME_AS_GYMNASIUM)


@pytest.mark.parametrize("name", SAME_AS_GYMNASIUM)
def test_every_step_is_that_of_gymnasium(pool, name):
    env, single = pool(name, num_envs=3, max_t=30), gym.make(name).unwrapped
    single.reset(seed=0)
    before, compared, length = env.reset(), 0, np.zeros(3, int)
    for action in random_actions(env, 100):
        step, taken = env.step(action), env._to_env(action)
        length += 1
        for i in range(3):
            put(single, name, before[i])
            obs, reward, terminated, *_ = single.step(taken[i] if np.ndim(taken[i]) else int(taken[i]))
            if np.abs(before[i]).max() < SHOWN.get(name, np.inf):
                np.testing.assert_allclose(step.final_obs[i], obs, rtol=1e-3, atol=1e-3)
                np.testing.assert_allclose(step.reward[i], reward, rtol=1e-3, atol=1e-3)
                assert step.terminated[i] == terminated
                compared += 1
            assert step.truncated[i] or length[i] < 30
            if step.terminated[i] or step.truncated[i]:
                assert env.stats.running_length[i] == 0
                assert (step.obs[i] != step.final_obs[i]).any()
                length[i] = 0
            else:
                np.testing.assert_array_equal(step.obs[i], step.final_obs[i])
        before = step.obs
    assert compared > 100
    np.testing.assert_array_equal(env.stats.running_length, length)


def test_a_step_is_not_written_to_by_the_next(pool):
    assert_steps_stay(pool("CartPole-v1", num_envs=2))


def test_the_seed_decides_and_a_restored_one_begins_episodes_that_were_not_lived(pool):
    env, again, other = (pool("CartPole-v1", seed, num_envs=2) for seed in (3, 3, 4))
    first = env.reset()
    np.testing.assert_array_equal(again.reset(), first)
    assert (other.reset() != first).all()
    for action in random_actions(env, 60):
        env.step(action)
    assert not again.load_state_dict(round_trip(env.state_dict()))
    assert again.stats.episodes == env.stats.episodes > 0
    assert (again.stats.running_length == 0).all()
    assert (again.obs != first).all()


def test_an_episode_may_end_and_be_cut_in_the_same_step(pool):
    def falls_at(**keys):
        env = pool("CartPole-v1", seed=1, num_envs=1, **keys)
        env.reset()
        for step in range(1, 30):
            if (ended := env.step(np.zeros(1, np.int64))).terminated[0]:
                return step, ended
        raise AssertionError

    last, _ = falls_at()
    again, step = falls_at(max_t=last)
    assert again == last
    assert step.truncated[0]


def test_no_restored_one_lives_the_episodes_of_another(pool):
    env = pool("CartPole-v1", num_envs=2)
    firsts = [env.reset()]
    for _ in range(2):  # no episode ends between them
        other = pool("CartPole-v1", num_envs=2)
        other.load_state_dict(round_trip(env.state_dict()))
        firsts.append(other.obs)
        env = other
    assert len({first.tobytes() for first in firsts}) == 3


def test_what_it_cannot_do_is_said(build, monkeypatch):
    with pytest.raises(SpecError, match="LunarLander-v3, envpool is not known to have the same"):
        build("LunarLander-v3", backend="envpool")
    with pytest.raises(SpecError, match="takes no wrappers"):
        build("CartPole-v1", backend="envpool", wrappers=[{"id": "FlattenObservation"}])
    monkeypatch.setitem(sys.modules, "envpool", None)  # cannot be imported
    with pytest.raises(SpecError, match=r"install it with: pip install .slm-lab\[envpool\]."):
        build("CartPole-v1", backend="envpool")


def test_an_option_that_it_does_not_know_is_said(pool):
    with pytest.raises(SpecError, match="envpool cannot make CartPole-v1 so"):
        pool("CartPole-v1", no_such_option=1)


def test_to_draw_it_is_gymnasium(build):
    how = {"render_mode": "rgb_array"}
    assert type(build("CartPole-v1", backend="envpool", how=how)) is GymVecEnv
