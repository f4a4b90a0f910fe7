"""A run that is stopped, however it is stopped, goes on as if nothing had happened."""

import shutil
import sys

import pytest
from lab_runs import (
    CONV,
    a_moment,
    assert_same_run,
    begin,
    checkpoint_of,
    in_child,
    kill_group,
    lab,
    make_spec,
    newest,
    only_run,
    rows,
    run_and_save_often,
    run_and_stop,
    run_session,
    wait_until,
)

from slm_lab.cli import main
from slm_lab.env.atari_backend import AtariVecEnv
from slm_lab.experiment.trial import Trial
from slm_lab.lib.files import write_json
from slm_lab.spec import SpecError


@pytest.fixture
def pair(tmp_path):
    """The folder of a run to be stopped, and of one that never is."""
    return lambda spec: (begin(tmp_path / "stopped", spec), begin(tmp_path / "never", spec))


@pytest.mark.parametrize(("algorithm", "frames"), [("PPO", 12_000), ("DoubleDQN", 6000)])  # more than a moment takes
def test_killed_at_a_random_moment(tmp_path, pair, algorithm, frames):
    spec = make_spec(algorithm, max_frame=frames)
    killed, never = pair(spec)
    child = in_child(run_and_save_often, spec, killed)
    wait_until(lambda: checkpoint_of(tmp_path / "stopped", spec.name))
    a_moment()
    child.kill()
    child.join()
    assert child.exitcode == -9
    assert newest(killed)[0] < frames

    run_session(spec, killed)
    run_session(spec, never)
    assert len(rows(killed)) == frames / 200
    assert_same_run(killed, never)
    assert not list(killed.model_dir.glob(".*"))  # no half-written checkpoint is left


@pytest.mark.parametrize("algorithm", ["PPO", "Reinforce", "DoubleDQN"])
@pytest.mark.parametrize("normalize", [False, True])
def test_stopped_again_and_again(pair, algorithm, normalize):
    spec = make_spec(algorithm, normalize_obs=normalize, normalize_reward=normalize)
    stopped, never = pair(spec)
    # at the very beginning, within a batch, at its end, at a row, one step from the end
    for frame in (0, 4, 52, 64, 400, 660, 996):
        assert run_and_stop(spec, stopped, frame) is False
        assert newest(stopped)[0] == frame
    assert run_session(spec, stopped).finished
    run_session(spec, never)
    assert_same_run(stopped, never)


@pytest.mark.parametrize(
    ("algorithm", "env", "keys"),
    [
        ("DoubleDQN", "LunarLander-v3", {"num_envs": 2}),
        ("PPO", "LunarLander-v3", {"wrappers": [{"id": "TimeAwareObservation"}]}),
        ("PPO", "HalfCheetah-v5", {"normalize_obs": True, "normalize_reward": True}),
        ("PPO", "odd_envs:Walk", {"frame_op": "stack", "frame_op_len": 3, "max_t": 50}),
    ],
)
@pytest.mark.parametrize("frames", [600, pytest.param(4000, marks=pytest.mark.slow)])
def test_worlds_go_on_exactly(pair, algorithm, env, keys, frames):
    spec = make_spec(algorithm, env, max_frame=frames, **keys)
    stopped, never = pair(spec)
    for part in (0.3, 0.7):
        run_and_stop(spec, stopped, int(part * frames))
    run_session(spec, stopped)
    run_session(spec, never)
    assert_same_run(stopped, never)


@pytest.mark.parametrize(
    "env",
    ["odd_envs:Unseeded", pytest.param("ALE/Pong-v5", marks=pytest.mark.slow)],
)
def test_a_world_that_cannot_be_put_back_begins_fresh_episodes_and_says_so(tmp_path, log_messages, monkeypatch, env):
    # a replay of the emulator that takes another course, as it may with another version of it
    replay = AtariVecEnv._replay
    monkeypatch.setattr(AtariVecEnv, "_replay", lambda self: 255 - replay(self))
    spec = make_spec("PPO", env, net=CONV if "Pong" in env else {})
    paths = begin(tmp_path, spec)
    run_and_stop(spec, paths, 500)
    before = rows(paths)
    run_session(spec, paths)
    assert any("fresh episodes begin" in line and env in line for line in log_messages)
    assert rows(paths)[: len(before)] == before
    assert [row["frame"] for row in rows(paths)] == ["200", "400", "600", "800", "1000"]


@pytest.mark.slow
def test_pong_goes_on_exactly(pair):
    spec = make_spec("PPO", "ALE/Pong-v5", net=CONV, max_frame=1200)
    stopped, never = pair(spec)
    run_and_stop(spec, stopped, 500)
    run_session(spec, stopped)
    run_session(spec, never)
    assert_same_run(stopped, never)


def test_damaged_checkpoints_are_passed_over(pair, log_messages):
    spec = make_spec("DoubleDQN")
    damaged, never = pair(spec)
    for frame in (300, 640):
        run_and_stop(spec, damaged, frame)
    (damaged.model_dir / "tiny_t0_s0_ckpt-640" / "net.safetensors").write_bytes(b"\0" * 100)
    run_session(spec, damaged)
    run_session(spec, never)
    assert_same_run(damaged, never)
    assert any("ckpt-640 is damaged" in line for line in log_messages)

    before = rows(damaged)
    for folder in damaged.model_dir.glob("tiny_t0_s0_ckpt-[0-9]*"):
        (folder / "manifest.json").write_text("{")
    with pytest.raises(SpecError, match="every checkpoint of session 0 is damaged"):
        run_session(spec, damaged)
    assert rows(damaged) == before

    for folder in damaged.model_dir.glob("tiny_t0_s0_ckpt-[0-9]*"):
        shutil.rmtree(folder)
    run_session(spec, damaged)  # none at all: from the beginning
    assert_same_run(damaged, never)


def test_more_frames_than_were_asked_for_at_first(pair):
    short, long = make_spec(max_frame=600), make_spec(max_frame=1200)
    stopped, never = pair(short)
    run_session(short, stopped)
    run_session(long, stopped)
    run_session(long, never)
    assert_same_run(stopped, never)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    trial = Trial(make_spec(max_frame=400), data_dir=tmp_path)
    metrics = trial.run()
    before = {path: path.read_bytes() for path in trial.paths.model_dir.rglob("*") if path.is_file()}
    again = Trial(trial.spec, data_dir=tmp_path, resume=trial.paths.folder)
    assert again.run() == metrics
    assert {path: path.read_bytes() for path in trial.paths.model_dir.rglob("*") if path.is_file()} == before


def test_a_spec_that_no_longer_fits_is_refused_and_nothing_is_lost(tmp_path):
    spec = make_spec()
    paths = begin(tmp_path, spec)
    run_and_stop(spec, paths, 500)
    for changed in (make_spec(net={"hid_layers": [16]}), make_spec(num_envs=8)):
        with pytest.raises(SpecError, match="checkpoint of frame 500 does not fit the spec"):
            run_session(changed, paths)
    assert run_session(spec, paths).finished
    assert len(rows(paths)) == 5


@pytest.mark.parametrize(("first", "then"), [("dev", "train"), ("train", "dev")])
def test_the_mode_may_change(tmp_path, first, then):
    spec = make_spec()
    paths = begin(tmp_path, spec)
    run_session(make_spec(max_frame=400), paths, mode=first)
    run_session(spec, paths, mode=then)
    table = rows(paths)
    assert len(table) == 5
    assert [bool(row.get("grad_norm")) for row in table] == [first == "dev"] * 2 + [False] * 3


@pytest.mark.slow
def test_a_whole_trial_is_killed_and_resumed_by_train_at_latest(tmp_path, monkeypatch):
    spec = make_spec(env="my_envs:MyEnv", name="both", max_frame=8000, meta={"max_session": 2})
    (tmp_path / "my_envs.py").write_text(
        "import time\nfrom odd_envs import Walk\n"
        "class MyEnv(Walk):\n"
        "    def step(self, action):\n        time.sleep(1e-4)\n        return super().step(action)\n"
    )
    shutil.copy(sys.modules["lab_runs"].__file__.replace("lab_runs", "odd_envs"), tmp_path)
    write_json(tmp_path / "spec.json", {spec.name: spec.to_dict()})
    words = ("spec.json", "both")
    trial = lab(tmp_path, *words, "train")
    wait_until(lambda: all(checkpoint_of(tmp_path / "data", "both", index) for index in (0, 1)))
    a_moment()
    kill_group(trial)
    killed = only_run(tmp_path / "data", "both")
    assert all(newest(killed, index)[0] < 8000 for index in (0, 1))

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*words, "train@latest"]) == 0
    never = begin(tmp_path / "never", spec)
    for index in (0, 1):
        run_session(spec, never, index)
    assert_same_run(killed, never, sessions=2)
    assert rows(killed, 0) != rows(killed, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalize_obs": True}, "env.clip_obs: a run that goes on keeps its environment"),
        ({"env": "Acrobot-v1"}, "env.name: a run that goes on keeps its environment"),
        ({"net": {"hid_layers": [16]}}, "checkpoint of frame 400 does not fit the spec"),
        ({"max_frame": 300}, "env.max_frame: 300 is past, as the run is at frame 400"),
    ],
)
def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path, changed, message):
    paths = begin(tmp_path, make_spec())
    run_and_stop(make_spec(), paths, 400)
    before = {file: file.read_bytes() for file in paths.folder.glob("*_spec.json")}
    with pytest.raises(SpecError, match=message):
        Trial(make_spec(**changed), data_dir=tmp_path, resume=paths.folder).run()
    assert {file: file.read_bytes() for file in paths.folder.glob("*_spec.json")} == before
