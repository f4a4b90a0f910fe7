"""Batches: what a job file says, several runs at once, a failing one, Ctrl-C, and the batches that ship."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from slm_lab.cli import job as jobs
from slm_lab.cli import main
from slm_lab.cli.job import read_job
from slm_lab.cli.run import Settings
from slm_lab.experiment.options import RunOptions
from slm_lab.lib.device import available_cores, keep_to_share
from slm_lab.spec import load_spec
from slm_lab.spec.loader import read_specs, spec_files

SLM_LAB = Path(sys.executable).with_name("slm-lab")
JOBS = Path(__file__).parents[2] / "job"

BROKEN_ENVS = """
import os

import gymnasium as gym


class Broken(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        raise RuntimeError("the engine is on fire")


class Deadly(Broken):
    def step(self, action):
        os._exit(9)


class Cores(Broken):
    def step(self, action):
        return self.observation_space.sample(), float(len(os.sched_getaffinity(0))), True, False, {}
"""


@pytest.fixture
def job(tmp_path):
    """Write a job file."""

    def write(content):
        file = tmp_path / "job.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


@pytest.fixture
def broken_envs(tmp_path, monkeypatch):
    (tmp_path / "broken_envs.py").write_text(BROKEN_ENVS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def grid_file(spec_file, tmp_path):
    raw = read_specs(Path(spec_file))["tiny"]
    grid = json.loads(json.dumps(raw).replace("${env:-CartPole-v1}", "${env}"))
    file = tmp_path / "grid.json"
    file.write_text(json.dumps({"grid": grid | {"spec_params": {"env": ["CartPole-v1", "Acrobot-v1"]}}}))
    return str(file)


def table(out):
    """The rows of the summary: entry without its place → the other cells; and the line below them."""
    *rows, totals = out.rstrip().partition("\nentry ")[2].splitlines()[1:]
    cells = [re.split(r" {2,}", row) for row in rows]
    return {entry.split()[1]: rest for entry, *rest in cells}, totals


def frames_of(folder):
    with next((folder / "info").glob("*_t0_s0_session_df_train.csv")).open() as file:
        return [int(float(row["frame"])) for row in csv.DictReader(file)]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_a_batch_goes_on_after_a_failure(job, spec_file, grid_file, broken_envs, tmp_path, capsys):
    file = job(f"""{{
      "{tmp_path}/no_such.json": {{"missing": "train"}},
      "{grid_file}": {{"grid": "dev",}},  // a run for each value of spec_params
      "{spec_file}": {{
        "tiny": [
          "train -s env=broken_envs:Broken", "train -s env=broken_envs:Deadly",
          "train -s env=broken_envs:Cores", "train",
        ],
      }},
    }}""")
    data = tmp_path / "data"
    words = ["--job", str(file), "--parallel", "2", "-s", "env.max_frame=100", "--data", str(data)]
    assert main(words) == 1
    captured = capsys.readouterr()
    rows, totals = table(captured.out)
    outcomes = {"missing": "failed", "grid_cartpole": "done", "grid_acrobot": "done", "tiny_broken": "failed"}
    assert {name: row[1] for name, row in rows.items()} == outcomes | {"tiny_cores": "done", "tiny": "done"}
    assert totals == "4 done, 3 failed"
    if hasattr(os, "sched_setaffinity"):
        assert float(rows["tiny_cores"][2]) in {max(1, available_cores() // 2), (available_cores() + 1) // 2}
    score = json.loads(next(data.glob("tiny_2*/*_metrics_scalar.json")).read_text())["total_reward_ma"]
    mode, outcome, shown, duration, folder = rows["tiny"]
    assert (mode, outcome, shown) == ("train", "done", f"{score:.2f}")
    assert re.fullmatch(r"\d:\d\d", duration)
    assert frames_of(Path(folder)) == [50, 100]
    assert rows["tiny_broken"][2] == "–"
    assert Path(rows["tiny_broken"][4]).is_dir()
    for text in ("no_such.json: no such file", "the engine is on fire", "exit code 9 and no word"):
        assert text in captured.err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to some cores")
@pytest.mark.parametrize(
    ("parallel", "shares"),
    [(2, [[0, 1], [2, 3, 4]]), (3, [[0], [1, 2], [3, 4]]), (7, [[0], [0], [1], [2], [2], [3], [4]])],
)
def test_cores_are_shared_out(parallel, shares, monkeypatch):
    taken = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {4, 0, 2, 1, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _process, cores: taken.append(cores))
    for slot in range(parallel):
        keep_to_share(slot, parallel)
    assert taken == shares


def test_ctrl_c_saves_all_and_one_command_goes_on(job, spec_file, grid_file, tmp_path):
    file = job({spec_file: {"tiny": ["train", "train -s env=Acrobot-v1"]}, grid_file: {"grid": "dev"}})
    words = [SLM_LAB, "--job", file, "--parallel", "2", "--data", tmp_path]
    long = ["-s", "env.max_frame=1e8", "-s", "meta.log_frequency=500"]
    process = subprocess.Popen([*words, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(list(tmp_path.glob("tiny_*/info/*_session_df_train.csv"))) == 2)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    rows, totals = table(out)
    assert totals == "2 stopped, 2 not begun"
    frames = {entry: frames_of(Path(rows[entry][4]))[-1] for entry in ("tiny", "tiny_acrobot")}
    command = shlex.split(re.search(r"go on with: (slm-lab .*)", error.splitlines()[-1])[1])
    rest = tmp_path / "job_rest.json"
    assert command == ["slm-lab", "--job", str(rest), "--parallel=2", f"--data={tmp_path}", *long]
    assert [(entry.spec_name, entry.mode.partition("@")[0], entry.sets) for entry in read_job(rest)] == [
        ("tiny", "train", ()),
        ("tiny_acrobot", "train", ()),
        ("grid", "dev", ("env=CartPole-v1",)),
        ("grid", "dev", ("env=Acrobot-v1",)),
    ]
    # the very command, but to an end
    end = max(frames.values()) + 500
    process = subprocess.run(
        [SLM_LAB, *command[1:], "-s", f"env.max_frame={end}"], capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    more, totals = table(process.stdout)
    assert totals == "4 done"
    assert set(more) == {"tiny", "tiny_acrobot", "grid_cartpole", "grid_acrobot"}
    # two begin together, and the third where one of them has ended
    said = re.findall(r"^slm-lab: job (\d)/4 \w+: (done )?", process.stderr, re.MULTILINE)
    assert said[:2] == [("1", ""), ("2", "")]
    assert said[2][1] == "done "
    assert said[3] == ("3", "")
    lines = [line for line in process.stdout.partition("\nentry ")[0].splitlines() if line]
    assert {re.match(r"\[(\d)/4 \w+\] ", line)[1] for line in lines} == {"1", "2", "3", "4"}
    for entry in ("tiny", "tiny_acrobot"):
        assert more[entry][4] == rows[entry][4]
        assert frames_of(Path(more[entry][4]))[-1] == end


def test_what_is_left_goes_on_with_every_flag_that_was_given(job, spec_file, tmp_path, monkeypatch, capsys):
    """Without --keep=-1, it would delete the models that are to be kept."""
    monkeypatch.setattr(jobs, "_run_all", lambda *_arguments: None)  # stopped before the first
    options = RunOptions(torch_compile="false", cuda_offset=2)
    settings = Settings(("a=b c",), tmp_path / "my_data", options, serial=True, keep=-1, ray_address="auto")
    flags = ["--cuda-offset=2", f"--data={settings.data_dir}", "--keep=-1", "--ray-address=auto", "--serial"]
    flags += ["--torch-compile=false", "-s", "a=b c"]
    assert settings.words == flags
    words = ["--job", str(job({spec_file: {"tiny": "train"}})), *flags]
    assert main(words) == 130
    command = shlex.split(capsys.readouterr().err.rpartition("go on with: ")[2])
    assert command == ["slm-lab", "--job", str(settings.data_dir / "job_rest.json"), *flags]


def test_no_core_is_kept_for_nobody(job, spec_file, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(jobs, "_run_all", lambda _runs, _settings, parallel, _stop: seen.append(parallel))
    words = ["--job", str(job({spec_file: {"tiny": ["train", "dev"]}})), "--data", str(tmp_path)]
    assert [main([*words, f"--parallel={parallel}"]) for parallel in (1, 2, 8)] == [130] * 3
    assert seen == [1, 2, 2]


def test_a_batch_that_is_killed_leaves_no_run_at_work(job, spec_file, tmp_path):
    words = [SLM_LAB, "--job", job({spec_file: {"tiny": "train"}}), "--data", tmp_path, "-s", "env.max_frame=1e8"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: any(tmp_path.glob("tiny_*/info/*_session_df_train.csv")))
        finally:
            process.kill()
    (folder,) = tmp_path.glob("tiny_*")
    lock = FileLock(folder / "log" / ".tiny_t0.lock")
    lock.acquire(timeout=60)  # it is held until the run has saved
    lock.release()


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ("[1, 2]", "spec_file: {spec_name: mode}"),
        ('{"a.json": "train"}', "spec_file: {spec_name: mode}"),
        ('{"a.json": {"x": 1}}', "the mode is 1"),
        ('{"a.json": {"x": ["dev", ""]}}', "the mode is ''"),
        ('{"a.json": {"x": "trian"}}', "'trian'"),
        ('{"a.json": {"x": "train env=Hopper-v5"}}', "only -s KEY=VALUE may follow"),
        ('{"a.json": {"x": "train -s env=Hopper-v5 -s"}}', "only -s KEY=VALUE may follow"),
        ('{"a.json": {"x": "train -s \'env"}}', "No closing quotation"),
        ('{"a.json": {"x": "dev"}, "a.json": {"y": "dev"}}', "uplicate"),
        ("{", "not a job file"),
        ("{}", "names nothing to run"),
        ('{"a.json": {}}', "names nothing to run"),
        ('{"a.json": {"x": []}}', "names nothing to run"),
    ],
)
def test_a_bad_job_file_is_exit_code_2(text, say, job, capsys):
    assert main(["--job", str(job(text))]) == 2
    error = capsys.readouterr().err
    assert say in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("file", sorted(JOBS.glob("*.json")), ids=lambda file: file.stem)
def test_every_entry_of_the_jobs_that_ship_is_a_good_spec(file):
    entries = read_job(file)
    specs = [load_spec(entry.spec_file, entry.spec_name, entry.sets) for entry in entries]
    assert len({(spec.name, spec.env.name, spec.env.max_frame, spec.hash) for spec in specs}) == len(entries)
    assert all(Path(entry.spec_file).parts[0] == "slm_lab" for entry in entries)


CLASSIC = r"(CartPole|Acrobot|MountainCar|Pendulum|LunarLander)"


@pytest.mark.parametrize(
    ("job_file", "pattern"),
    [("classic", CLASSIC), ("atari", r"\$\{env:-ALE/"), ("mujoco", r"(\$\{env:-HalfCheetah|Humanoid)")],
)
def test_the_benchmarks_leave_no_algorithm_out(job_file, pattern):
    listed = {entry.spec_name for entry in read_job(JOBS / f"{job_file}_benchmark.json")}
    folder = next(path for path in JOBS.parent.glob("slm_lab/spec/benchmark"))
    specs = {name: raw for file in spec_files(folder) for name, raw in read_specs(file).items()}
    wanted = {name for name, raw in specs.items() if re.match(pattern, raw["env"]["name"])}
    assert len(wanted) > 10
    assert wanted - listed == set(), f"add them to job/{job_file}_benchmark.json"
