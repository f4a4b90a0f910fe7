"""The one table of numbers: the lab's specs say the same, and the library of opponents is what it says."""

from pathlib import Path

import pytest

from bench import works as table
from bench.sides import LAB, PEERS, SIDES
from bench.sides.lab import spec_file
from bench.works import WORKS
from slm_lab import load_spec

by_work = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)


def load(work):
    return load_spec(str(spec_file(work)), work.name)


@by_work
def test_the_spec_says_what_the_table_says(work):
    spec = load(work)
    agent, env, net = spec.agent, spec.env, spec.agent.net
    assert (env.name, env.num_envs, env.max_frame) == (work.env, work.num_envs, work.max_frame)
    assert (agent.algorithm.gamma, net.hid_layers_activation) == (work.gamma, work.activation)
    assert tuple(net.fc_hid_layers if work.images else net.hid_layers) == work.hidden
    assert (net.optim_spec["name"], net.optim_spec["lr"]) == ("Adam", work.lr)
    assert spec.meta.max_session == max(1, work.sessions)
    assert (env.normalize_obs, env.normalize_reward, spec.meta.rigorous_eval) == (False, False, 0)
    if work.images:
        assert (net.conv_hid_layers, env.kwargs["repeat_action_probability"]) == ("nature", table.STICKY)


@pytest.mark.parametrize(
    "work", [work for work in WORKS.values() if work.algorithm == "ppo"], ids=lambda work: work.name
)
def test_ppo_does_the_same_work(work):
    spec = load(work)
    algorithm, net = spec.agent.algorithm, spec.agent.net
    assert (algorithm.time_horizon, algorithm.training_epoch) == (work.horizon, work.epochs)
    assert (algorithm.minibatch_size, algorithm.lam) == (work.batch_size, table.GAE_LAMBDA)
    assert algorithm.clip_eps_spec.start_val == work.clip_eps
    assert algorithm.entropy_coef_spec.start_val == work.entropy_coef
    assert (algorithm.val_loss_coef, net.clip_grad_val) == (table.VALUE_COEF, table.PPO_MAX_GRAD_NORM)
    assert net.optim_spec["eps"] == table.PPO_ADAM_EPS
    assert work.steps_per_event * work.batch_size == work.epochs * work.horizon * work.num_envs


@pytest.mark.parametrize(
    "work", [work for work in WORKS.values() if work.algorithm != "ppo"], ids=lambda work: work.name
)
def test_an_update_per_frame(work):
    spec = load(work)
    algorithm, memory, net = spec.agent.algorithm, spec.agent.memory, spec.agent.net
    assert (algorithm.training_frequency, algorithm.training_iter, work.num_envs) == (1, 1, 1)
    assert algorithm.training_start_step == work.learning_starts
    assert (memory.batch_size, memory.max_size) == (work.batch_size, work.buffer_size)
    if work.algorithm == "sac":
        assert (net.update_type, net.polyak_coef) == ("polyak", table.SAC_POLYAK)
    else:
        assert (net.update_type, net.update_frequency) == ("replace", table.DQN_TARGET_EVERY)
        assert net.clip_grad_val == table.DQN_MAX_GRAD_NORM
        explore = algorithm.explore_var_spec
        assert (explore.end_val, explore.end_step) == (table.DQN_EPSILON_END, table.DQN_EPSILON_FRAMES)


def test_every_side_is_known_and_every_refusal_is_of_a_work():
    assert set(SIDES) == {LAB, *PEERS}
    for side in SIDES.values():
        assert all(name in WORKS for name, _ in side.cannot)


def test_the_scripts_are_short():
    for file in Path(table.__file__).with_name("scripts").glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 150, file.name
