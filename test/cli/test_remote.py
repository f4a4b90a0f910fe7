"""Runs on rented machines: the command, the files in .dstack/ by dstack's own models, and what the machine runs."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from slm_lab.cli import main

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".dstack").rglob("*.yml"))
MUJOCO = ["benchmark/ppo/ppo_mujoco.json", "ppo_mujoco"]


def read(file):
    return yaml.safe_load(file.read_text())


@pytest.fixture
def repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def printed(words, capsys):
    assert main(["run-remote", *words, "--dry-run"]) == 0
    return shlex.split(capsys.readouterr().out)


def test_command_and_environment(repository, capsys):
    words = printed(["demo.json", "dqn_cartpole"], capsys)
    assert words[:3] == ["SPEC_FILE=demo.json", "SPEC_NAME=dqn_cartpole", "LAB_MODE=train"]
    assert words[3:-2] == shlex.split("dstack apply -f .dstack/run-cpu-train.yml -y --detach --name dqn-cartpole")
    assert words[-2] == "-e"
    assert words[-1].startswith("DATA_DIR=/data/dqn-cartpole-2")


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["dev"], "cpu-train"),
        (["search"], "cpu-search"),
        (["train", "--gpu"], "gpu-train"),
        (["search", "--gpu"], "gpu-search"),
    ],
)
def test_mode_and_gpu_choose_the_file(words, file, repository, capsys):
    assert f".dstack/run-{file}.yml" in printed(["demo.json", "dqn_cartpole", *words], capsys)


def test_settings_and_name_are_passed_on(repository, capsys):
    words = printed([*MUJOCO, "-s", "env=Hopper-v5", "-s", "max_frame=4e6", "-n", "hop-1"], capsys)
    assert "SPEC_NAME=ppo_mujoco" in words
    assert words[words.index("--name") + 1] == "hop-1"
    assert words[-1] == "SET=env=Hopper-v5 max_frame=4e6"
    assert "ppo-mujoco-hopper" in printed([*MUJOCO, "-s", "env=Hopper-v5", "-s", "max_frame=4e6"], capsys)


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["demo.json", "no_such"], "no_such"),
        (["demo.json", "dqn_cartpole", "enjoy"], "MODE 'enjoy'"),
        (["demo.json", "dqn_cartpole", "train@latest"], "goes on by itself"),
        (["demo.json", "dqn_cartpole", "-n", "Big_Name"], "--name Big_Name"),
        (["demo.json", "dqn_cartpole", "-s", "agent.name=a b"], "blanks"),
        ([str(ROOT / "slm_lab/spec/demo.json"), "dqn_cartpole"], "within the repository"),
    ],
)
def test_bad_input(words, say, repository, capsys):
    assert main(["run-remote", *words, "--dry-run"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert say in line


def test_elsewhere_than_in_a_clone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run-remote", "demo.json", "dqn_cartpole"]) == 2
    assert "in a clone" in capsys.readouterr().err


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """An empty PATH but for what a test puts there: a command that writes down how it was called, and its exit code."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def add(name, code=0):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $@ SPEC_NAME=$SPEC_NAME DATA_DIR=$DATA_DIR" >> {tmp_path}/calls\nexit {code}\n'
        )
        script.chmod(0o755)

    add.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return add


def test_dstack_gets_it_and_its_exit_code_is_ours(repository, commands, capsys):
    assert main(["run-remote", "demo.json", "dqn_cartpole"]) == 2
    assert "dstack is not installed" in capsys.readouterr().err
    commands("dstack", code=7)
    assert main(["run-remote", "demo.json", "dqn_cartpole"]) == 7
    [call] = commands.calls()
    assert call.startswith(
        "dstack apply -f .dstack/run-cpu-train.yml -y --detach --name dqn-cartpole -e DATA_DIR=/data/"
    )
    assert "SPEC_NAME=dqn_cartpole" in call


@pytest.mark.parametrize(
    ("mode", "begun", "typed"),
    [
        ("train", False, "train"),
        ("train", True, "train@latest"),
        ("search", True, "search@latest"),
        ("dev", True, "dev"),
    ],
)
def test_what_the_machine_runs_goes_on_after_an_interruption(mode, begun, typed, tmp_path, commands):
    commands("uv")
    data = tmp_path / "volume" / "mine"
    if begun:
        (data / "dqn_cartpole_2026_01_31_120000").mkdir(parents=True)
        (data / "@latest").symlink_to("dqn_cartpole_2026_01_31_120000")
    variables = {"SPEC_FILE": "demo.json", "SPEC_NAME": "dqn_cartpole", "LAB_MODE": mode, "DATA_DIR": str(data)}
    subprocess.run(["bash", ROOT / ".dstack/run.sh"], check=True, env=os.environ | variables)
    sync, call = commands.calls()
    assert sync.startswith("uv sync")
    assert call.startswith(f"uv run --no-sync slm-lab demo.json dqn_cartpole {typed} ")
    assert call.endswith(f"DATA_DIR={data}")


# --- the files


def test_there_is_all_that_is_promised():
    names = {str(file.relative_to(ROOT / ".dstack")) for file in FILES}
    runs = {f"run-{machine}-{mode}.yml" for machine in ("cpu", "gpu") for mode in ("train", "search")}
    base = runs | {
        "fleet-cpu.yml",
        "fleet-gpu.yml",
        "dev-cpu.yml",
        "dev-gpu.yml",
        "data-volume.yml",
        "cache-volume.yml",
    }
    short = {"dev.yml", "fleet.yml", "search.yml", "train.yml"}
    assert names == base | {"dev.yml", "train.yml"} | {f"workflows/{name}" for name in base | short}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / ".dstack")))
def test_dstack_takes_the_file(file):
    models = pytest.importorskip("dstack._internal.core.models.configurations")
    parsed = models.parse_apply_configuration(read(file))
    kind = file.resolve().name.partition("-")[0] if "volume" not in file.name else "volume"
    types = {"run": "task", "dev": "dev-environment", "fleet": "fleet", "volume": "volume"}
    assert parsed.type == types[kind]


def test_dstack_would_refuse_a_wrong_file():
    models = pytest.importorskip("dstack._internal.core.models.configurations")
    good = read(ROOT / ".dstack" / "run-gpu-train.yml")
    for wrong in ({"gpus": 1}, {"spot_policy": "always"}, {"volumes": ["/data"]}, {"resources": {"cpu": "many"}}):
        with pytest.raises(Exception, match=next(iter(wrong))):
            models.parse_apply_configuration(good | wrong)


def test_fleets_and_volumes_that_runs_name_are_there():
    made = {kind: [] for kind in ("fleet", "volume")}
    for content in map(read, FILES):
        made.setdefault(content["type"], []).append(content["name"])
    for file in FILES:
        content = read(file)
        assert set(content.get("fleets", [])) <= set(made["fleet"])
        assert {volume.partition(":")[0] for volume in content.get("volumes", [])} <= set(made["volume"])
        if content["type"] == "task":
            assert content["env"] == ["SPEC_FILE", "SPEC_NAME", "LAB_MODE"]
            assert content["retry"]["on_events"] == ["no-capacity", "interruption"]
