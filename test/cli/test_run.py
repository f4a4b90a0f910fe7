"""Command lines that train, resume and replay."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slm_lab.cli import main, retro_main

SLM_LAB = Path(sys.executable).with_name("slm-lab")


def frames_of(folder):
    """The frames of the rows that the first session logged."""
    with next((folder / "info").glob("*_t0_s0_session_df_train.csv")).open() as file:
        return [int(float(row["frame"])) for row in csv.DictReader(file)]


def test_train_reports_what_came_of_it(spec_file, tmp_path, capsys):
    assert main([spec_file, "tiny", "train", "--data", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    (folder,) = tmp_path.glob("tiny_*")
    assert frames_of(folder) == [50, 100, 150, 200]
    assert "trial_metrics: frame:2.00e+02 | total_reward_ma:" in captured.err
    report = captured.out
    scalar = json.loads((folder / "tiny_t0_trial_metrics_scalar.json").read_text())
    assert f"mean {scalar['total_reward_ma']:.2f}  IQM {scalar['total_reward_ma']:.2f}" in report
    assert "(1 seed;" in report
    assert re.search(r"random_baseline +22\.97", report)
    for graph in folder.glob("*.html"):
        assert str(graph) in report
    for command in (f"enjoy@{folder} --render", f"train@{folder} -s env.max_frame=400", f"slm-retro {folder}"):
        assert command in report


def test_the_name_may_be_left_out_where_it_is_alone_and_dev_is_one_session(spec_file, tmp_path):
    assert main([spec_file, "-s", "meta.max_session=3", "--data", str(tmp_path)]) == 0
    (folder,) = tmp_path.glob("tiny_*")
    assert len(list((folder / "info").glob("*_session_df_train.csv"))) == 1


def test_set_fills_a_variable_and_a_path(spec_file, tmp_path, monkeypatch):
    monkeypatch.setenv("SET", "env=Acrobot-v1 env.max_frame=100")
    assert main([spec_file, "tiny", "train", "--data", str(tmp_path)]) == 0
    (folder,) = tmp_path.glob("tiny_acrobot_*")
    saved = json.loads((folder / "tiny_acrobot_spec.json").read_text())["tiny_acrobot"]
    assert saved["env"]["name"] == "Acrobot-v1"
    assert frames_of(folder) == [50, 100]


@pytest.fixture
def copy_of_run(run_folder, tmp_path):
    return Path(shutil.copytree(run_folder, tmp_path / "at@home" / run_folder.name))


def test_resume_goes_on_by_the_saved_spec(copy_of_run, spec_file):
    # a path may hold an @ itself; and the saved spec counts, not the file
    words = [spec_file, "tiny", f"train@{copy_of_run}", "-s", "env.max_frame=300"]
    assert main(words) == 0
    assert frames_of(copy_of_run) == [50, 100, 150, 200, 250, 300]


def test_resume_latest_finds_the_newest_run_of_the_name(copy_of_run, spec_file):
    words = [spec_file, "tiny", "train@latest", "--data", str(copy_of_run.parent), "-s", "env.max_frame=250"]
    assert main(words) == 0
    assert frames_of(copy_of_run)[-1] == 250


def test_latest_names_the_runs_whose_name_says_the_environment(copy_of_run, spec_file, capsys):
    folder = copy_of_run.rename(copy_of_run.with_name("tiny_acrobot_2026_01_01_000000"))
    assert main([spec_file, "tiny", "enjoy@latest", "--data", str(folder.parent)]) == 2
    assert f"no run of 'tiny' in {folder.parent}; of 'tiny_acrobot' there is: {folder}" in capsys.readouterr().err


def test_only_enjoy_records(spec_file, tmp_path, capsys):
    assert main([spec_file, "tiny", "dev", "--record", "--data", str(tmp_path)]) == 2
    assert "--record: only MODE enjoy@RUN" in capsys.readouterr().err


def test_resume_refuses_a_run_of_another_spec(copy_of_run, capsys):
    assert main(["demo.json", "dqn_cartpole", f"train@{copy_of_run}"]) == 2
    assert "a run of 'tiny', not of 'dqn_cartpole'" in capsys.readouterr().err


def files_and_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["", "/tiny_t0_s0_spec.json", "/tiny_spec.json"])
def test_enjoy_prints_the_score_of_every_episode(target, run_folder, spec_file, capsys):
    before = files_and_times(run_folder)
    assert main([spec_file, "tiny", f"enjoy@{run_folder}{target}", "--episodes", "2"]) == 0
    scores = re.findall(r"episode (\d): score (\d+)", capsys.readouterr().out)
    assert [number for number, _ in scores] == ["1", "2"]
    assert files_and_times(run_folder) == before


def test_enjoy_latest_records_a_film(copy_of_run, spec_file, capsys):
    words = [spec_file, "tiny", "enjoy@latest", "--data", str(copy_of_run.parent), "--record", "--episodes", "1"]
    assert main(words) == 0
    (film,) = copy_of_run.rglob("*.mp4")
    assert film.stat().st_size > 1000
    assert str(film) in capsys.readouterr().out


def test_retro_makes_the_metrics_again(copy_of_run):
    file = copy_of_run / "tiny_t0_trial_metrics_scalar.json"
    before = json.loads(file.read_text())
    file.unlink()
    assert retro_main([str(copy_of_run)]) == 0
    assert json.loads(file.read_text()) == before


BROKEN_ENV = """
import gymnasium as gym


class Broken(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        raise RuntimeError("the engine is on fire")
"""


def test_what_a_spec_has_to_say_is_said_once(spec_file, tmp_path, capsys):
    late = ["-s", "agent.algorithm.training_start_step=1000", "--data", str(tmp_path)]
    for mode, max_frame in (("dev", 100), ("train@latest", 150)):
        assert main([spec_file, "tiny", mode, "-s", f"env.max_frame={max_frame}", *late]) == 0
        assert capsys.readouterr().err.count("so it will not learn") == 1


@pytest.fixture
def broken_env(tmp_path, monkeypatch):
    (tmp_path / "broken_env.py").write_text(BROKEN_ENV)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return "broken_env:Broken"


def test_a_failed_run_is_exit_code_1_with_its_traceback(spec_file, broken_env, tmp_path, capsys):
    assert main([spec_file, "tiny", "-s", f"env={broken_env}", "--data", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "the engine is on fire" in error


def test_ctrl_c_saves_says_how_to_go_on_and_is_exit_code_130(spec_file, tmp_path):
    words = [SLM_LAB, spec_file, "tiny", "train", "-s", "env.max_frame=1e8", "-s", "meta.log_frequency=500"]
    process = subprocess.Popen([*words, "--data", tmp_path], stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(lambda: any(tmp_path.glob("tiny_*/info/*_session_df_train.csv")), 60)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    command = re.search(r"go on with: slm-lab (.*)", error)[1].split()
    (folder,) = tmp_path.glob("tiny_*")
    frame = frames_of(folder)[-1]
    # the very command that it names goes on
    assert main([*command, "-s", f"env.max_frame={frame + 1000}"]) == 0
    assert frames_of(folder)[-1] == frame + 1000


def _wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
