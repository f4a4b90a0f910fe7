"""Everything in the README that can be typed is typed here, in its order, only with fewer frames."""

import re
import runpy
import shlex
import shutil
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import running_hub
from learning import learn

import bench.__main__ as bench
from bench import scale
from slm_lab.cli import main, retro_main
from slm_lab.spec import Spec

HUB = find_spec("huggingface_hub") is not None  # an extra

ROOT = Path(__file__).parents[1]
INSTALLING = {"pip install uv", "uv tool install --editable ."}
THIS_VERY_TEST = {"uv run pytest"}
READING = ("check", "list", "benchmark-table", "compare", "plot", "push", "pull")
SHORT = ["-s", "env.max_frame=1000"]
ONE_SEED = ["-s", "meta.max_session=1"]
RUN_FOLDER = "data/dqn_cartpole_2026_01_31_120000"


def blocks():
    """The fenced blocks: (language, text)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder that looks like the repository, where the files that the README shows are written."""
    for name in ("slm_lab", "job", "run_lab.py", ".dstack"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROWSER_PATH", "/no/browser")  # no PNGs, which take seconds a run
    for name in ("RENDER", "RECORD", "LOG_LEVEL", "DATA_DIR", "JOB", "SET"):
        monkeypatch.delenv(name, raising=False)
    for language, text in blocks():
        named = re.match(r"(?://|#) ([^\s/]+\.(?:json|py))\n", text)  # not those that belong into the lab itself
        if named and language in ("json", "python"):
            (tmp_path / named[1]).write_text(text, encoding="utf-8")
    return tmp_path


def commands():
    for language, text in blocks():
        if language == "sh":
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                if words and shlex.join(words) not in INSTALLING | THIS_VERY_TEST:
                    yield words


def shortened(words):
    """The words of a command after its name, with fewer frames where it trains."""
    if (words and words[0] in READING) or any(word.startswith("enjoy@") for word in words):
        return words
    if any(word.startswith("search@") for word in words):  # it keeps its spec
        return [word.replace("max_trial=32", "max_trial=2") for word in words] + ["--serial"]
    if "search" in words:
        return [*words, *SHORT, *ONE_SEED, "-s", "meta.max_trial=1", "--serial"]
    if words[:1] == ["best"] and "--train" not in words:
        return words
    if any(word.startswith("train@") for word in words):
        return [*words, *SHORT]
    return [*words, *SHORT, *ONE_SEED]


def run(words, monkeypatch):
    with monkeypatch.context() as patch:
        while re.match(r"[A-Z_]+=", words[0]):
            patch.setenv(*words.pop(0).split("=", 1))
        match words:
            case ["uv", "run", "slm-lab", *rest] | ["slm-lab", *rest] | ["python", "run_lab.py", *rest]:
                return main(shortened(rest))
            case ["slm-retro", *rest]:
                return retro_main(rest)
            case ["uv", "run", "--group", "bench", "python", "-m", "bench", *rest]:
                bench.parse(rest)  # what it does is tested in test/bench
                return 0
            case ["uv", "run", "--group", "bench", "python", "-m", "bench.scale", *rest]:
                scale.parse(rest)
                return 0
    raise AssertionError(f"do not know how to test: {shlex.join(words)}")


@pytest.fixture
def hub(monkeypatch):
    """The stand-in for the Hugging Face hub, if its client is here."""
    with running_hub(monkeypatch) if HUB else nullcontext():
        yield


def test_every_command_works(desk, hub, monkeypatch):
    done = 0
    for words in commands():
        line = shlex.join(words)
        if RUN_FOLDER in line and not Path(RUN_FOLDER).exists():
            newest = max(Path("data").glob("dqn_cartpole_2*"))
            shutil.copytree(newest, RUN_FOLDER)
        if "--repo" in words and not HUB:
            continue
        assert run(words, monkeypatch) == 0, line
        done += 1
    assert done > 20
    assert list(Path("results").glob("dqn_cartpole_*"))


def test_the_notebook_works(desk, capsys):
    runpy.run_path("notebook.py", run_name="__main__")
    assert float(capsys.readouterr().out.split()[-1]) > 0


def test_the_algorithm_runs(monkeypatch):
    (text,) = [text for _, text in blocks() if text.startswith("# slm_lab/agent/algorithm/vpg.py")]
    module = {}
    exec(text, module)
    monkeypatch.setattr("slm_lab.agent.make_algorithm", module["VPG"])
    part = {"name": "Reinforce", "gamma": 0.9, "training_frequency": 2}  # which has its keys
    agent = {"name": "VPG", "algorithm": part, "memory": {"name": "OnPolicyReplay"}}
    agent["net"] = {"type": "MLPNet", "hid_layers": [8], "hid_layers_activation": "tanh"}
    env = {"name": "probes:ActionReward", "num_envs": 2, "max_frame": 100}
    learned = learn(Spec.from_dict("vpg", {"agent": agent, "env": env}))
    assert isinstance(learned.algorithm, module["VPG"])
    assert learned.opt_steps == 2


def test_the_error_is_as_shown(desk, capsys):
    (example,) = [text for language, text in blocks() if not language and text.startswith("$ slm-lab")]
    command, shown = example.splitlines()
    assert main(shlex.split(command)[2:]) == 2
    assert capsys.readouterr().err.startswith(shown.removesuffix("…").rstrip())


def test_the_files_are_as_shown(desk):
    assert main(["demo.json", "dqn_cartpole", "dev", *SHORT]) == 0
    (run_folder,) = Path("data").glob("dqn_cartpole_2*")
    (shown,) = [text for language, text in blocks() if not language and text.startswith("data/")]
    listed = {*re.findall(r"^  ([\w.]+/?) ", shown, re.MULTILINE), *re.findall(r"dqn_cartpole_t0\w*\.json", shown)}
    there = {path.name + "/" * path.is_dir() for path in run_folder.iterdir()}
    assert len(listed) > 8
    for name in listed:
        assert name in there or name.removeprefix("…") in there, name


def test_every_flag_of_the_table_is_one(capsys):
    main(["--help"])
    known = capsys.readouterr().out
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| flag | variable | |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    assert len(rows) == 11
    for flags, variables in rows:
        for flag in re.findall(r"`(-[\w-]*-?[\w-]+)", flags):
            assert flag in known
        for variable in re.findall(r"`(\w+)`", variables):
            assert f"env var: {variable}" in re.sub(r"\s+", " ", known)
