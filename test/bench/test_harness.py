"""The harness: what it starts, what it says of what fails, and one work run for real."""

import json
import sys

import pytest

from bench import harness
from bench.__main__ import main
from bench.harness import Result, Setup, compare, environment, last_line, measure, refusal
from bench.sides import SIDES, Side, installed
from bench.works import WORKS

CARTPOLE, TRIAL = WORKS["ppo_cartpole"], WORKS["trial"]
needs_psutil = pytest.mark.skipif(not installed("psutil"), reason="psutil is of the dependency group bench")


def test_runners_get_their_threads_and_a_trial_of_the_lab_none():
    assert environment(2, CARTPOLE, "lab")["OMP_NUM_THREADS"] == "2"
    assert environment(1, TRIAL, "eager")["MKL_NUM_THREADS"] == "1"


def test_a_trial_of_the_lab_shares_out_the_cores_itself(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in environment(1, TRIAL, "lab")


def test_the_last_error_is_what_is_told():
    assert last_line("Traceback\n  File\nValueError: bad\nW1234 a warning\n") == "ValueError: bad"
    assert last_line("only words\n\n") == "only words"
    assert last_line("") == "ended without a word"


def test_who_cannot_or_is_not_installed_takes_no_part(monkeypatch):
    monkeypatch.setitem(SIDES, "sb3", Side("x", "no-such-package"))
    monkeypatch.setitem(SIDES, "torchrl", Side("y", cannot=(("ppo_cartpole", "has no such thing"),)))
    assert refusal(CARTPOLE, "sb3") == "not installed"
    assert refusal(CARTPOLE, "torchrl") == "has no such thing"
    assert refusal(CARTPOLE, "eager") is None


def test_sides_are_tried_with_threads_and_then_take_turns(monkeypatch):
    runs = []

    def fake(work, side, threads, setup):
        runs.append((side, threads, setup.seconds))
        if side == "compiled":
            return Result(error="no compiler")
        return Result(fps=100.0 * threads if side == "eager" else 100.0 / threads, first=1.0)

    monkeypatch.setattr(harness, "measure", fake)
    monkeypatch.setattr(harness.os, "cpu_count", lambda: 2)
    found = compare(CARTPOLE, ["lab", "eager", "compiled"], Setup(seconds=10, rounds=2), lambda line: None)
    sides = found["sides"]
    assert runs[-4:] == [("lab", 1, 10), ("eager", 2, 10), ("eager", 2, 10), ("lab", 1, 10)]
    assert (sides["lab"]["threads"], sides["eager"]["threads"]) == (1, 2)
    assert sides["eager"]["tried"] == {"1": 100.0, "2": 200.0}
    assert sides["compiled"]["error"] == "no compiler"
    assert sides["compiled"]["rounds"] == []
    json.dumps(found)


@needs_psutil
def test_a_runner_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(harness, "_runner", lambda *_: [sys.executable, "-c", "raise ValueError('no such thing')"])
    assert measure(CARTPOLE, "eager", 1, Setup()).error == "ValueError: no such thing"


@needs_psutil
def test_progress_of_a_runner_is_read_and_its_children_are_counted(monkeypatch):
    child = "import time; held = bytearray(100 * 2**20); time.sleep(3)"
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {child!r}])
import time; time.sleep(1)
from bench.meter import MARK
now = time.time()
for event in range(5):
    print(MARK + str([now + event, 1024 * (event + 1), event + 1]))
"""
    monkeypatch.setattr(harness, "_runner", lambda *_: [sys.executable, "-c", code])
    result = measure(CARTPOLE, "eager", 1, Setup(warmup=1.0))
    assert (result.fps, result.steps, result.error) == (pytest.approx(1024), pytest.approx(16), None)
    assert result.memory > 100 * 2**20
    assert 1 < result.first < 60


@pytest.mark.slow
@needs_psutil
def test_the_lab_and_a_script_run_for_real(tmp_path):
    output = tmp_path / "run.json"
    flags = ["--rounds", "1", "--seconds", "2", "--warmup", "0.5", "--peers", "eager", "-o", str(output)]
    assert main(["ppo_cartpole", *flags]) == 0
    sides = json.loads(output.read_text())["works"]["ppo_cartpole"]["sides"]
    for name in ("lab", "eager"):
        (result,) = sides[name]["rounds"]
        assert result["error"] is None
        assert result["fps"] > 100
        assert result["memory"] > 100 * 2**20
        assert result["first"] > 0
