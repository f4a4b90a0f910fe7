"""MuJoCo's environments side by side: the same bits as one environment after another, and the same contract."""

import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from conftest import assert_steps_stay, random_actions, round_trip, same_step, same_tree

from slm_lab.env.gym_backend import GymVecEnv
from slm_lab.env.mujoco_backend import BATCH_FROM_ENVS, TASKS, Moved, MujocoVecEnv

NAMES = ["HalfCheetah-v5", "Hopper-v5", "InvertedPendulum-v5", "Swimmer-v5", "Walker2d-v5"]
FALL = {"Hopper-v5", "InvertedPendulum-v5", "Walker2d-v5"}
LIMIT = 9


@pytest.fixture
def batch(build):
    def make(name="Hopper-v5", seed=0, num_threads=1, **keys):
        env = build(name, seed, how={"num_threads": num_threads}, **{"num_envs": 4, **keys})
        assert type(env) is MujocoVecEnv
        return env

    return make


@pytest.fixture
def both(build, batch):
    """The environments as a batch, and as a loop."""

    def make(name, num_threads=1, **keys):
        loop = build(name, backend="gymnasium", **{"num_envs": 4, **keys})
        assert type(loop) is GymVecEnv
        return batch(name, num_threads=num_threads, **keys), loop

    return make


def test_all_are_compared():
    assert {gym.spec(name).entry_point for name in NAMES} == set(TASKS)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_every_step_is_that_of_a_loop(both, name, num_threads):
    env, loop = both(name, num_threads, max_t=LIMIT)
    assert env._batch.nthread == num_threads
    assert (env.obs_space, env.action_space) == (loop.obs_space, loop.action_space)
    ends = np.zeros(2, int)
    for seed in range(2):
        np.testing.assert_array_equal(env.reset(), loop.reset())
        for action in random_actions(env, 50, seed):
            step, other = env.step(2 * action), loop.step(2 * action)  # half of them beyond the bounds
            assert same_step(step, other)
            assert (step.obs is step.final_obs) == (other.obs is other.final_obs)
            assert env.obs is step.obs
            ends += step.terminated.sum(), step.truncated.sum()
    assert env.stats.drain() == loop.stats.drain()
    assert same_tree(env.stats.state_dict(), loop.stats.state_dict())
    assert (ends > 0).tolist() == [name in FALL, True]


@pytest.mark.parametrize("name", NAMES)
def test_wherever_they_are_they_are_judged_and_shown_as_in_a_loop(both, name):
    env, loop = both(name, num_threads=2)
    env.reset()
    loop.reset()
    random, ends, fastest = np.random.default_rng(0), 0, 0.0
    # MuJoCo itself begins anew where the last is
    for scale in (0.1, 0.3, 1.0, 10.0, 100.0, 1e12):
        for action in random_actions(env, 10):
            for i, single in enumerate(loop.envs):
                qpos = env._one.init_qpos + min(scale, 1.0) * random.normal(size=env._qpos.shape[1])
                qvel = scale * random.normal(size=env._qvel.shape[1])
                env._qpos[i], env._qvel[i] = qpos, qvel
                single.unwrapped.set_state(qpos, qvel)
            step = env.step(action)
            assert same_step(step, loop.step(action))
            ends, fastest = ends + step.terminated.sum(), max(fastest, np.abs(step.final_obs[:, -2:]).max())
    assert (ends > 0) == (name in FALL)
    assert (fastest == 10) == (name in ("Hopper-v5", "Walker2d-v5"))


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5"])
def test_each_number_of_a_state_is_as_healthy_as_gymnasium_has_it(batch, name):
    env = batch(name)
    one, data, task = env._one, env._one.data, env._task
    first, verdicts = np.concatenate([one.init_qpos, one.init_qvel]), set()
    for i in range(len(first)):
        for value in (-101, -100, -2, -1, -0.2, 0, 0.1, 0.2, 0.7, 0.75, 0.8, 1, 2, 3, 100, 101):
            state = first.copy()
            state[i] = value
            data.qpos[:], data.qvel[:] = qpos, qvel = np.split(state, [len(data.qpos)])
            moved = Moved(np.zeros(1), np.zeros((1, len(data.ctrl)), np.float32), qpos[None], qvel[None])
            reward, terminated = task.judge(one, moved)
            assert (reward[0], terminated[0]) == (one.healthy_reward, not one.is_healthy)
            verdicts.add(bool(terminated[0]))
    assert verdicts == {True, False}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_neither_layout_nor_precision_of_the_actions_makes_a_difference(both, dtype):
    env, loop = both("HalfCheetah-v5")
    env.reset()
    loop.reset()
    for action in random_actions(env, 50):
        action = np.asfortranarray(action, dtype)
        assert same_step(env.step(action), loop.step(action))
        np.testing.assert_array_equal(env.stats.running_return, loop.stats.running_return)


def test_a_step_is_not_written_to_by_the_next(batch):
    assert_steps_stay(batch())


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_one_goes_on_as_if_never_interrupted(batch, name):
    env, other = batch(name), batch(name, seed=1, num_threads=2)
    env.reset()
    other.reset()
    for action in random_actions(env, 50):
        env.step(action)
    state = env.state_dict()
    kept = round_trip(state)
    assert other.load_state_dict(kept)
    np.testing.assert_array_equal(other.obs, env.obs)
    for action in random_actions(env, 60, seed=1):
        assert same_step(env.step(action), other.step(action))
    assert same_tree(state, kept)
    assert same_tree(env.state_dict(), other.state_dict())
    assert env.stats.drain() == other.stats.drain()
    np.testing.assert_array_equal(env.reset(), other.reset())


@pytest.mark.parametrize("steps", [3, 50])
@pytest.mark.parametrize(("old", "new"), [("auto", "gymnasium"), ("gymnasium", "auto")])
def test_from_a_state_of_a_loop_or_for_one_fresh_episodes_begin(build, old, new, steps):
    one, other = (build("Hopper-v5", num_envs=4, backend=backend) for backend in (old, new))
    first = one.reset()
    for action in random_actions(one, steps):
        one.step(action)
    assert not other.load_state_dict(round_trip(one.state_dict()))
    assert other.stats.episodes == one.stats.episodes
    assert (one.stats.episodes > 0) == (steps > 3)
    assert (other.stats.running_length == 0).all()
    assert (other.obs != first).any(axis=1).all()  # not those that were lived
    other.step(random_actions(other, 1)[0])
    assert (other.stats.running_length == 1).all()


def test_from_a_state_of_another_mujoco_fresh_episodes_begin(batch):
    env = batch()
    env.reset()
    state = env.state_dict()
    state["mujoco"]["rows"] = state["mujoco"]["rows"][:, :-1]
    assert not env.load_state_dict(state)


def test_there_are_no_more_threads_than_environments(batch):
    assert batch(num_envs=2, num_threads=3)._batch.nthread == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"num_envs": BATCH_FROM_ENVS - 1},
        {"backend": "gymnasium"},
        {"ctrl_cost_weight": 0.2},
        {"wrappers": [{"id": "FlattenObservation"}]},
        {"how": {"render_mode": "rgb_array"}},
    ],
)
def test_where_a_loop_is_as_fast_or_asked_for_or_can_do_more_it_is_a_loop(build, keys):
    assert type(build("HalfCheetah-v5", **{"num_envs": BATCH_FROM_ENVS, **keys})) is GymVecEnv


@pytest.mark.parametrize(
    "changes",
    [
        {"entry_point": "gymnasium.envs.mujoco.ant_v5:AntEnv"},
        {"kwargs": {"ctrl_cost_weight": 0.2}},
        {"additional_wrappers": (gym.wrappers.FlattenObservation.wrapper_spec(),)},
        {"max_episode_steps": None},
    ],
)
def test_what_is_registered_otherwise_is_a_loop(build, monkeypatch, changes):
    monkeypatch.setitem(gym.registry, "Hopper-v5", replace(gym.spec("Hopper-v5"), **changes))
    assert type(build("Hopper-v5", num_envs=2)) is GymVecEnv


def test_mujoco_is_loaded_only_where_it_is_used():
    code = "import sys, slm_lab.env; print('mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
