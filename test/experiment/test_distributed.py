"""Sessions that are workers of one agent, in processes."""

import os
import signal
import sys

import numpy as np
import pytest
from lab_runs import a_moment, begin, checkpoint_of, lab, make_spec, newest, only_run, rows, same, wait_until

from slm_lab.agent import Agent, DivergenceError
from slm_lab.cli import main
from slm_lab.env import make_env
from slm_lab.experiment.analysis import analyze_trial_sessions
from slm_lab.experiment.baseline import baseline_key
from slm_lab.experiment.session import Session
from slm_lab.experiment.signals import StopRequest
from slm_lab.experiment.trial import Trial, TrialError
from slm_lab.lib.files import write_json
from slm_lab.spec import Spec

WORKERS = 2
A2C = {
    "algorithm": {"name": "ActorCritic", "gamma": 0.9, "lam": 0.9, "training_frequency": 4, "entropy_coef_spec": None},
    "memory": {"name": "OnPolicyBatchReplay"},
}
DQN = {
    "algorithm": {
        "name": "DQN",
        "action_policy": "epsilon_greedy",
        "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 3000},
        "gamma": 0.9,
        "training_frequency": 8,
        "training_start_step": 64,
    },
    "memory": {"name": "Replay", "batch_size": 32, "max_size": 1000},
}
NET = {
    "type": "MLPNet",
    "hid_layers": [16],
    "hid_layers_activation": "tanh",
    "optim_spec": {"name": "Adam", "lr": 0.03},
}


def know_baseline(data_dir, spec):
    """Spare a trial the games of a random policy."""
    data_dir.mkdir(exist_ok=True)
    write_json(data_dir / "random_baseline.json", {baseline_key(spec.env.name, spec.env.kwargs): 0.0})


def probe_spec(agent, mode, max_frame=4000):
    net = NET | {"lr_scheduler_spec": {"name": "LinearToZero", "frame": max_frame}} | agent.get("net", {})
    return Spec.from_dict(
        "probe",
        {
            "agent": agent | {"net": net},
            "env": {"name": "probes:ContextReward", "num_envs": 4, "max_frame": max_frame},
            "meta": {"distributed": mode, "max_session": WORKERS, "log_frequency": 1000, "seed": 3},
        },
    )


def pair_spec(mode="shared", **keys):
    return make_spec(meta={"distributed": mode, "max_session": WORKERS}, **keys)


def weights_of(paths, worker):
    return newest(paths, worker)[1]["net"]


@pytest.mark.parametrize(
    ("agent", "mode"),
    [
        (A2C, "synced"),
        (DQN, "shared"),
        pytest.param(A2C, "shared", marks=pytest.mark.slow),
        pytest.param(DQN, "synced", marks=pytest.mark.slow),
    ],
)
def test_workers_learn_one_policy(tmp_path, agent, mode):
    spec = probe_spec(agent, mode)
    know_baseline(tmp_path, spec)
    trial = Trial(spec, data_dir=tmp_path)
    metrics = trial.run()
    (frame, one), (other_frame, other) = (newest(trial.paths, worker) for worker in range(WORKERS))

    # one net, which has learned, by one optimiser
    nets = [name for name in one if "net" in name]
    assert nets
    assert same([one[name] for name in nets], [other[name] for name in nets])
    env = make_env(spec.env, seed=0)
    player = Agent(spec, env, seed=0)
    player.load_nets(one)
    assert player.act(np.array([[-1.0], [1.0]], np.float32), explore=False).tolist() == [0, 1]
    optim, other_optim = (
        [group["optimizer"]["state"] for group in state["agent"]["optim"]["net"]["groups"]] for state in (one, other)
    )
    assert same(optim, other_optim)

    # frames and steps of both, each with a world and a stream of its own
    assert 4000 <= frame == other_frame < 4000 + 4 * WORKERS
    assert metrics["frame"] == 4000
    assert sum(state["clock"]["t"] for state in (one, other)) * 4 == frame
    assert one["clock"]["t"] * 4 < 4000
    steps = [state["agent"]["optim"]["net"]["opt_steps"] for state in (one, other)]
    assert all(steps)
    assert one["clock"]["opt_step"] == other["clock"]["opt_step"] == sum(steps)
    if mode == "synced":  # under a lock none is lost
        assert optim[0]["0"]["step"] * len(optim) == sum(steps)
    assert not same(one["agent"]["streams"], other["agent"]["streams"])

    # one grid of rows, schedules by the frames of both
    tables = [rows(trial.paths, worker) for worker in range(WORKERS)]
    assert tables[0][-1]["frame"] == tables[1][-1]["frame"] == "4000"
    for table in tables:
        assert {row["frame"] for row in table} <= {"1000", "2000", "3000", "4000"}
        assert float(table[-1]["lr"]) < 0.03 * 0.1
    assert not trial.paths.shared_memory.exists()


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(tmp_path):
    spec = pair_spec(max_frame=400)
    trial = Trial(spec, data_dir=tmp_path)
    metrics = trial.run()
    before = {path: path.read_bytes() for path in trial.paths.model_dir.rglob("*") if path.is_file()}
    assert Trial(spec, data_dir=tmp_path, resume=trial.paths.folder).run() == metrics
    assert {path: path.read_bytes() for path in trial.paths.model_dir.rglob("*") if path.is_file()} == before


def test_a_killed_worker_fails_the_trial_and_the_run_goes_on_from_worker_0(tmp_path):
    (tmp_path / "notes").mkdir()
    keys = {"folder": str(tmp_path / "notes"), "kind": "kill", "at": 150, "seconds": 1e-4}
    spec = pair_spec("synced", env="odd_envs:Trouble", num_envs=2, max_frame=3000, **keys)
    know_baseline(tmp_path / "data", spec)
    with pytest.raises(TrialError, match="its process ended with signal 9"):
        Trial(spec, data_dir=tmp_path / "data").run()
    run = only_run(tmp_path / "data", "tiny")
    assert not run.shared_memory.exists()
    stopped = [newest(run, worker) for worker in range(WORKERS)]
    began_at = stopped[0][0] if stopped[0] else 0
    steps = sum(state["clock"]["t"] for _, state in filter(None, stopped))

    trial = Trial(spec, data_dir=tmp_path / "data", resume=run.folder)
    trial.run()
    (frame, one), (_, other) = (newest(run, worker) for worker in range(WORKERS))
    assert 3000 <= frame < 3000 + 2 * WORKERS
    assert same(one["net"], other["net"])
    # the frames go on from those of worker 0
    assert (sum(state["clock"]["t"] for state in (one, other)) - steps) * 2 == frame - began_at
    for worker in range(WORKERS):
        frames = [int(row["frame"]) for row in rows(run, worker)]
        assert frames == sorted(set(frames))
        assert frames[-1] == 3000


def test_ctrl_c_saves_and_train_at_latest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    keys = {"folder": str(tmp_path / "notes"), "kind": "none", "seconds": 1e-4}
    spec = pair_spec(env="odd_envs:Trouble", name="pair", max_frame=100_000, **keys)
    write_json(tmp_path / "spec.json", {spec.name: spec.to_dict()})
    know_baseline(tmp_path / "data", spec)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = lab(tmp_path, "spec.json", "pair", "train", env=environment)
    for worker in range(WORKERS):
        wait_until(lambda worker=worker: checkpoint_of(tmp_path / "data", "pair", worker))
    a_moment()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    run = only_run(tmp_path / "data", "pair")
    stopped = [newest(run, worker)[0] for worker in range(WORKERS)]
    assert min(stopped) >= 200
    before = [rows(run, worker) for worker in range(WORKERS)]

    monkeypatch.chdir(tmp_path)
    end = max(stopped) // 200 * 200 + 1000
    assert main(["spec.json", "pair", "train@latest", "-s", f"env.max_frame={end}"]) == 0
    for worker in range(WORKERS):
        table = rows(run, worker)
        kept = [row for row in before[worker] if int(row["frame"]) <= stopped[0]]
        assert table[: len(kept)] == kept
        assert len(table) > len(kept)
        assert table[-1]["frame"] == str(end)
        assert int(table[-1]["opt_step"]) > int(kept[-1]["opt_step"])
    assert same(weights_of(run, 0), weights_of(run, 1))


def lone_worker(tmp_path, index=0, **keys):
    """A worker that is by itself until the others come."""
    spec = pair_spec(**keys)
    paths = begin(tmp_path, spec)
    return Session(spec, paths.for_session(index), stop=StopRequest()), paths


@pytest.mark.parametrize("algorithm", ["PPO", "DoubleDQN"])
def test_a_worker_that_comes_when_all_is_done_has_a_last_row(tmp_path, algorithm):
    spec = pair_spec("synced", algorithm=algorithm, max_frame=200)
    spec = spec.with_meta(rigorous_eval=1, eval_frequency=200)
    know_baseline(tmp_path, spec)
    paths = begin(tmp_path, spec)
    stop_at_end = Session(spec, paths.for_session(0), stop=StopRequest())

    def report(frame, fps, total_reward):
        stop_at_end.stop.requested = frame >= 200

    stop_at_end.report = report
    assert stop_at_end.run()
    said = []
    late = Session(spec, paths.for_session(1), report=lambda *row: said.append(row))
    assert late.run()
    for kind in ("train", "eval"):
        assert [row["frame"] for row in rows(paths, 1, kind)] == ["200"]
    assert said[-1][:2] == (200, 0.0)
    assert analyze_trial_sessions(paths, spec)["frame"] == 200

    # as a run of before has it: no row; and one that has its rows gets no more
    paths.for_session(1).session_df("train").unlink()
    paths.shared_memory.unlink()
    before = rows(paths, 0)
    Trial(spec, data_dir=tmp_path, resume=paths.folder).run()
    assert rows(paths, 0) == before
    assert [row["frame"] for row in rows(paths, 1)] == ["200"]


def test_dev_says_that_it_has_no_workers(tmp_path, log_messages):
    trial = Trial(pair_spec("synced"), "dev", tmp_path)
    assert trial.spec.meta.distributed is False
    assert [line.strip() for line in log_messages] == [
        'meta.distributed: "synced" is read as false, as MODE dev has one session, MODE train 2 workers'
    ]


def test_weights_that_diverge_are_saved_by_nobody(tmp_path):
    net = {"optim_spec": {"name": "Adam", "lr": 1e30}, "hid_layers_activation": "relu", "clip_grad_val": None}
    session, paths = lone_worker(tmp_path, net=net)
    with pytest.raises(DivergenceError, match="diverged at frame"):
        session.run()
    assert not session.shared.sound()
    session._save()
    assert newest(paths) is None


def test_who_meets_diverged_weights_says_so(tmp_path, monkeypatch):
    session, paths = lone_worker(tmp_path)

    def act(agent, obs, frame):
        session.shared.spoil()  # as another worker would
        raise RuntimeError("probabilities that are none")

    monkeypatch.setattr(Agent, "act", act)
    with pytest.raises(DivergenceError, match="the weights of all workers have diverged by frame 0"):
        session.run()
    assert newest(paths) is None


def test_an_error_of_one_is_no_divergence(tmp_path, monkeypatch):
    session, _ = lone_worker(tmp_path)
    monkeypatch.setattr(Agent, "act", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.run()
    assert session.shared.sound()


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_waits_hears_that_it_is_to_stop(tmp_path, index):
    """Worker 1 waits for worker 0 to begin; worker 0, at its end, for the last of worker 1."""
    session, _ = lone_worker(tmp_path, index, max_frame=100)
    asked = []

    def report(frame, fps, total_reward):
        asked.append(frame)
        session.stop.requested = len(asked) > 3  # it goes on asking its parent while it waits

    session.report = report
    assert session.run() is (index == 0)
    assert asked[-1] == (0 if index else 100)
    assert session.env.stats.window == 100 // WORKERS  # the last 100 episodes are those of all
