"""What the words and flags of a command line mean, and how it ends."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from slm_lab.cli import main, retro_main
from slm_lab.cli.app import arrange
from slm_lab.cli.run import parse_mode
from slm_lab.spec import SpecError

SLM_LAB = Path(sys.executable).with_name("slm-lab")


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ([], ["run"]),
        (["spec.json", "name", "train"], ["run", "spec.json", "name", "train"]),
        (["run", "spec.json", "name"], ["run", "spec.json", "name"]),
        (["-s", "env=x", "spec.json", "name", "train"], ["run", "-s", "env=x", "spec.json", "name", "train"]),
        (["-s", "check=1", "spec.json", "name"], ["run", "-s", "check=1", "spec.json", "name"]),
        (["spec.json", "check", "dev"], ["run", "spec.json", "check", "dev"]),
        (["--render", "run", "spec.json"], ["run", "--render", "spec.json"]),
        (
            ["--log-level", "DEBUG", "check", "spec.json", "name"],
            ["check", "--log-level", "DEBUG", "spec.json", "name"],
        ),
        (["--set=env=x", "-sa=b", "list"], ["list", "--set=env=x", "-sa=b"]),
        (["--job", "list", "--render"], ["run", "--job", "list", "--render"]),
        (["--render"], ["run", "--render"]),
        (["--help"], ["--help"]),
        (["--render", "--help"], ["--help"]),
        (["spec.json", "--help"], ["run", "spec.json", "--help"]),
    ],
)
def test_a_first_word_that_is_no_command_means_run(words, arranged):
    assert arrange(words) == arranged


@pytest.mark.parametrize(
    ("mode", "parsed"),
    [
        ("dev", ("dev", None)),
        ("train", ("train", None)),
        ("search", ("search", None)),
        ("search@latest", ("search", "latest")),
        ("enjoy", ("enjoy", None)),
        ("train@latest", ("train", "latest")),
        ("enjoy@data/x_2026/x_spec.json", ("enjoy", "data/x_2026/x_spec.json")),
        ("train@data/x@y", ("train", "data/x@y")),
    ],
)
def test_modes(mode, parsed):
    assert parse_mode(mode) == parsed


@pytest.mark.parametrize("mode", ["trian", "", "dev@latest", "search@", "train@", "enjoy@", "@latest", "TRAIN"])
def test_bad_modes_are_named(mode):
    with pytest.raises(SpecError, match=f"'{mode}'"):
        parse_mode(mode)


def one_line(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("slm-lab: ")
    return lines[0]


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["no_such.json", "name"], "no_such.json"),
        (["demo.json", "dqn_cartpol"], "did you mean 'dqn_cartpole'"),
        (["benchmark/dqn/dqn_cartpole.json"], "which of its"),
        (["demo.json", "dqn_cartpole", "trian"], "'trian'"),
        (["demo.json", "dqn_cartpole", "search"], "nothing to search"),
        (["demo_search.json", "ppo_cartpole_search", "search@latest"], "no search of 'ppo_cartpole_search'"),
        (["best", "no/run"], "no/run"),
        (["demo.json", "dqn_cartpole", "-s", "max_frame"], "key=value"),
        (["demo.json", "dqn_cartpole", "-s", "max_frame=1"], "max_frame"),
        (["demo.json", "dqn_cartpole", "-s", "agent.algorithm.gama=1"], "did you mean 'gamma'"),
        (["demo.json", "dqn_cartpole", "train@latest"], "no run of 'dqn_cartpole'"),
        (["demo.json", "dqn_cartpole", "enjoy"], "no run of 'dqn_cartpole'"),
        (["demo.json", "dqn_cartpole", "train@no/run"], "no/run"),
        (["demo.json", "dqn_cartpole", "train", "extra"], "extra"),
        (["--torch-compile", "perhaps"], "torch-compile"),
        (["--cuda-offset", "-1"], "cuda-offset"),
        (["--profle"], "--profile"),
        (["--job", "no_such.json"], "no_such.json"),
        (["--job", "a.json", "demo.json"], "demo.json"),
        (["check", "demo.json", "no_such"], "no_such"),
        (["check", "--all", "demo.json", "dqn_cartpole"], "--all"),
        (["check", "--all", "no_such"], "no_such"),
        (["list", "no such word"], "no such word"),
        (["compare"], "RUN..."),
        (["compare", "no/such/run"], "no/such/run"),
        (["compare", "mine=no/such/run"], "no/such/run"),
        (["push", "no_such_run", "--repo", "me/runs"], "slm-lab: "),
        (["push", "no_such_run"], "--repo USER/NAME"),
        (["pull", "ppo"], "--repo USER/NAME"),
        (["pull", "ppo", "--max-size", "-1"], "--max-size"),
        (["list", "--remote"], "--repo USER/NAME"),
        (["plot"], "--folders"),
        (["plot", "-f", ","], "--folders"),
        (["plot", "-f", "no_such_run"], "no_such_run"),
        (["plot", "-f", "a,b", "-l", "a"], "--labels"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, say, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert say in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOG_LEVEL", "LOUD"),
        ("TORCH_COMPILE", "maybe"),
        ("CUDA_OFFSET", "first"),
        ("PROFILE", "disk"),
        ("RENDER", "perhaps"),
        ("EPISODES", "0"),
        ("RECORD", "perhaps"),
    ],
)
def test_a_bad_variable_is_named_and_exit_code_2(variable, value, capsys, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert main(["demo.json", "no_such"]) == 2
    assert variable in one_line(capsys)


def test_a_flag_beats_its_variable(capsys, monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    assert main(["--log-level", "debug", "demo.json", "no_such"]) == 2
    assert "no_such" in one_line(capsys)


@pytest.mark.parametrize(("variable", "value"), [("JOB", "no_such_job.json"), ("SET", "a.b=1 broken")])
def test_job_and_set_have_variables_too(variable, value, capsys, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert main([]) == 2
    assert value.split()[-1] in one_line(capsys)


def test_data_dir_is_where_the_latest_run_is_looked_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "by_variable"))
    main(["demo.json", "dqn_cartpole", "enjoy"])
    assert "by_variable" in one_line(capsys)
    main(["demo.json", "dqn_cartpole", "enjoy", "--data", str(tmp_path / "by_flag")])
    assert "by_flag" in one_line(capsys)


def test_without_words_the_demo_runs_in_dev_mode(capsys):
    # found out without running it: the demo has no such key
    assert main(["-s", "env.name=No/Such-v0", "--log-level", "ERROR"]) == 2
    assert "No/Such-v0" in one_line(capsys)


def test_retro_of_no_run_is_exit_code_2(capsys, tmp_path):
    assert retro_main([str(tmp_path)]) == 2
    assert str(tmp_path) in one_line(capsys)
    assert retro_main([]) == 2


def test_help_shows_modes_flags_and_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    flags = [
        "--set",
        "--job",
        "--data",
        "--render",
        "--record",
        "--log-level",
        "--torch-compile",
        "--cuda-offset",
        "--profile",
    ]
    for word in [*flags, "check", "list", "train@latest", "enjoy@", "DATA_DIR", "CUDA_OFFSET"]:
        assert word in text


def test_help_answers_within_0_3_seconds():
    # in processor time, and the best of a few: what is measured is the program, not what else the machine is doing
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([SLM_LAB, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(took) < 0.3


LIGHT = """
import json, sys
from slm_lab.cli import main
code = main({words!r})
print(json.dumps([code, [name for name in ("torch", "gymnasium", "pandas", "plotly", "ray") if name in sys.modules]]))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["list", "cartpole"], 0),
        (["demo.json", "no_such", "train"], 2),
        (["benchmark-table", "no_such"], 2),
        (["compare", "no_such"], 2),
        (["plot", "-f", "no_such"], 2),
        (["pull", "ppo"], 2),
        (["run-remote", "demo.json", "no_such"], 2),
        (["demo.json", "dqn_cartpole", "enjoy@no_such"], 2),
        (["check", "demo.json", "dqn_cartpole", "-s", "agent.algorithm.gamma=2"], 2),
    ],
)
def test_what_needs_no_torch_does_not_import_it(words, code):
    done = subprocess.run([sys.executable, "-c", LIGHT.format(words=words)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [code, []]


def test_run_lab_is_the_same_program():
    script = Path(__file__).parents[2] / "run_lab.py"
    done = subprocess.run([sys.executable, script, "demo.json", "no_such"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("slm-lab: ")
