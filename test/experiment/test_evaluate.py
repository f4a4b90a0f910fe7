"""Evaluation measures, and touches nothing."""

import copy

import pytest
from lab_runs import begin, make_spec, newest, rows, run_and_stop, run_session, same

from slm_lab.experiment.evaluate import evaluate
from slm_lab.experiment.session import Session


def trained(tmp_path, spec):
    session = Session(spec, begin(tmp_path, spec).for_session(0))
    session.run()
    return session


def state_of(session):
    return {"agent": session.agent.state_dict(), "nets": session.agent.nets_state(), "env": session.env.state_dict()}


@pytest.mark.parametrize("algorithm", ["PPO", "DoubleDQN"])
def test_nothing_of_the_training_changes(tmp_path, algorithm):
    session = trained(tmp_path, make_spec(algorithm, normalize_obs=True, normalize_reward=True, max_frame=400))
    before = copy.deepcopy(state_of(session))
    evaluate(session.agent, session.spec.env, 3, episodes=2, train_env=session.env)
    assert same(state_of(session), before)


def test_batch_normalisation_learns_nothing_from_it(tmp_path):
    session = trained(tmp_path, make_spec("DoubleDQN", max_frame=400))
    net = session.agent.algorithm.modules["net"]
    modes = []
    before = net.training
    net.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    evaluate(session.agent, session.spec.env, 3, episodes=1, train_env=session.env)
    assert modes
    assert not any(modes)
    assert net.training == before


def test_the_same_seed_gives_the_same_returns_whatever_was_played_before(tmp_path):
    session = trained(tmp_path, make_spec(max_frame=400))
    first, other, again = (
        evaluate(session.agent, session.spec.env, seed, episodes=4, train_env=session.env) for seed in (3, 4, 3)
    )
    assert first == again
    assert first != other


def test_every_environment_counts_with_its_first_episode(tmp_path):
    session = trained(tmp_path, make_spec(max_frame=200))
    together = evaluate(session.agent, session.spec.env, 3, episodes=6, train_env=session.env)
    assert len(together) == 6
    assert len(set(together)) > 1
    # the first of a vector plays the same alone: long episodes do not lose against short ones that come in meanwhile
    assert evaluate(session.agent, session.spec.env, 3, episodes=1, train_env=session.env) == together[:1]


def test_returns_are_raw(tmp_path):
    keys = {"normalize_reward": True, "reward_scale": 0.01, "max_frame": 200}
    session = trained(tmp_path, make_spec(**keys))
    for total_reward in evaluate(session.agent, session.spec.env, 3, episodes=3, train_env=session.env):
        assert total_reward == int(total_reward) >= 8  # CartPole gives 1 a step


def test_training_is_the_same_with_and_without(tmp_path):
    meta = {"rigorous_eval": 2, "eval_frequency": 300}
    with_eval, without = make_spec(meta=meta, normalize_obs=True), make_spec(normalize_obs=True)
    one, other = begin(tmp_path / "with", with_eval), begin(tmp_path / "without", without)
    run_session(with_eval, one)
    run_session(without, other)
    assert rows(one) == rows(other)
    assert same(newest(one)[1]["net"], newest(other)[1]["net"])
    assert [row["frame"] for row in rows(one, kind="eval")] == ["300", "600", "900", "1000"]
    scores = {int(row["frame"]): float(row["total_reward"]) for row in rows(one, kind="eval")}
    frame, best = newest(one, kind="ckpt-best")
    assert scores[frame] == max(scores.values()) == best["score"]["total_reward"]


def test_evaluations_go_on_exactly(tmp_path):
    spec = make_spec(meta={"rigorous_eval": 2, "eval_frequency": 300})
    stopped, never = begin(tmp_path / "stopped", spec), begin(tmp_path / "never", spec)
    for frame in (300, 660):
        run_and_stop(spec, stopped, frame)
    run_session(spec, stopped)
    run_session(spec, never)
    assert rows(stopped, kind="eval") == rows(never, kind="eval")
    assert same(newest(stopped, kind="ckpt-best"), newest(never, kind="ckpt-best"))
