"""The table says what the files of the runs say, and names what they do not say."""

import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from lab_runs import begin, make_spec, run_session
from loguru import logger

from slm_lab.cli import main
from slm_lab.experiment.analysis import analyze_trial
from slm_lab.experiment.benchmark import benchmark_page, find_runs, page_of, read_result
from slm_lab.experiment.benchmark_rows import extended_page
from slm_lab.experiment.paths import find_run
from slm_lab.lib.files import read_json, write_json
from slm_lab.spec import SpecError


def run(folder, algorithm, name, label=None, seeds=2, scores=None, **env_keys):
    """Train for a moment; `scores` then stand for what the seeds came to."""
    spec = make_spec(algorithm, name=name, meta={"max_session": seeds}, **{"max_frame": 400, **env_keys})
    raw = spec.to_dict()
    raw["agent"]["name"] = label or algorithm
    paths = begin(folder, type(spec).from_dict(name, raw))
    for index in range(seeds):
        run_session(spec, paths, index)
    analyze_trial(paths, raw, 0.0)
    for index, score in enumerate(scores or ()):
        change(paths.trial_metrics, "sessions", str(index), total_reward_ma=score)
    derived = {"spec_hash": "abcdef012345", "mode": "train", "git_commit": "0123456789abcdef" + "0" * 24}
    write_json(paths.info_dir / f"{paths.trial_prefix}_derived.json", derived)
    return paths


def change(file, *path, **values):
    content = read_json(file)
    node = content
    for key in path:
        node = node[key]
    node |= values
    write_json(file, content)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of three runs; the tests change copies of it."""
    folder = tmp_path_factory.mktemp("made") / "data"
    run(folder, "PPO", "ppo_cartpole", scores=[100.0, 200.0])
    run(folder, "Reinforce", "reinforce_cartpole", "REINFORCE", scores=[40.0, 60.0])
    run(folder, "PPO", "ppo_acrobot", env="Acrobot-v1", max_t=20, max_frame=800, scores=[-80.0, -82.0])
    return folder


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data", symlinks=True)


def named(data, name):
    (folder,) = data.glob(f"{name}_2*")
    return find_run(folder)


def tables(page):
    """The rows of the matrix and of the list of runs: {column: cell}."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        found.append([dict(zip([name.strip() for name in head], row, strict=True)) for row in rows])
    return found


def test_environments_by_algorithms(data):
    matrix, *_ = tables(benchmark_page([data]))
    assert matrix == [
        {"environment": "Acrobot-v1", "frames": "8e2", "REINFORCE": "–", "PPO": "-81.0 [-82.0, -80.0]"},
        {
            "environment": "CartPole-v1",
            "frames": "4e2",
            "REINFORCE": "50.0 [40.0, 60.0]",
            "PPO": "150.0 [100.0, 200.0]",
        },
    ]


def test_every_run_with_all_there_is_to_know(data):
    _, runs, _ = tables(benchmark_page([data]))
    assert [row["spec"] for row in runs] == ["ppo_acrobot", "reinforce_cartpole", "ppo_cartpole"]
    row = runs[2]
    assert re.fullmatch(r"0 min \d\d s", row.pop("time a seed"))
    assert row.pop("run").startswith("ppo_cartpole_2")
    assert row == {
        "environment": "CartPole-v1",
        "algorithm": "PPO",
        "spec": "ppo_cartpole",
        "score": "150.0",
        "95 % interval": "[100.0, 200.0]",
        "seeds": "2 (from 7)",
        "each seed": "100.0, 200.0",
        "frames": "4e2",
        "spec hash": "abcdef012345",
        "commit": "0123456789",
    }


def test_curves_are_means_over_the_seeds(data):
    paths = named(data, "ppo_cartpole")
    for index, rewards in enumerate([(10, 30), (20, 50)]):
        file = paths.for_session(index).session_df("train")
        rows = pd.read_csv(file)
        assert rows["frame"].tolist() == [200, 400]
        rows.assign(total_reward=rewards).to_csv(file, index=False)
    *_, curves = tables(benchmark_page([data]))
    row = curves[2]
    assert [row[f"{tenth}0%"] for tenth in range(1, 11)] == ["–"] * 4 + ["15.0"] * 5 + ["40.0"]
    assert (row["environment"], row["spec"]) == ("CartPole-v1", "ppo_cartpole")


def test_the_score_is_that_of_the_run(tmp_path):
    paths = run(tmp_path, "PPO", "tiny")
    said = read_json(paths.trial_metrics)["over_seeds"]["total_reward_ma"]
    assert read_result(paths).mean == pytest.approx(said["mean"])


def test_the_newest_run_of_a_spec_counts_and_the_better_of_two_specs(data):
    paths = named(data, "ppo_cartpole")
    newer = shutil.copytree(paths.folder, data / "ppo_cartpole_2999_01_01_000000")
    for index, score in enumerate([90.0, 110.0]):
        change(find_run(newer).trial_metrics, "sessions", str(index), total_reward_ma=score)
    matrix, runs, _ = tables(benchmark_page([data]))
    assert matrix[1]["PPO"] == "100.0 [90.0, 110.0]"
    assert len(runs) == 4
    older = paths.folder.rename(data / "other_2000_01_01_000000")
    for file in older.rglob("ppo_cartpole*"):
        file.rename(file.with_name(file.name.replace("ppo_cartpole", "other")))
    matrix, *_ = tables(benchmark_page([data]))
    assert matrix[1]["PPO"] == "150.0 [100.0, 200.0]"


@pytest.mark.parametrize(
    ("file", "change", "note"),
    [
        ("derived", {"git_commit": None}, "the commit of the lab was not known to it"),
        ("derived", {"mode": "dev"}, "a run in mode dev"),
        ("derived", None, "ppo_cartpole_t0_derived.json is missing"),
        ("trial_metrics", None, "ppo_cartpole_t0_trial_metrics.json is missing"),
        ("session_df_train", None, "the rows of session 0 are missing, so its time and its curve are not known"),
    ],
)
def test_what_is_missing_is_said(data, file, change, note):
    paths = named(data, "ppo_cartpole")
    files = [path for path in paths.info_dir.iterdir() if f"_{file}." in path.name]
    for path in files:
        if change is None:
            path.unlink()
        else:
            write_json(path, read_json(path) | change)
    page = benchmark_page([data])
    assert f"- {paths.folder.name}: {note}\n" in page
    matrix, *_ = tables(page)
    assert matrix[1]["PPO"] in ("150.0 [100.0, 200.0]\\*", "–")


def test_a_run_that_was_stopped_or_lacks_seeds(data):
    paths = named(data, "ppo_cartpole")
    change(paths.trial_metrics, "sessions", "0", frame=200)
    change(paths.trial_metrics, "sessions", "1", total_reward_ma=None)
    notes = read_result(paths).notes
    assert notes == ("1 of 2 seeds have a score", "stopped at 2e2 of 4e2 frames")
    matrix, runs, _ = tables(benchmark_page([data]))
    assert matrix[1]["PPO"] == "100.0\\*"
    assert runs[2]["95 % interval"] == "–"


def test_changes_in_the_checkout_are_seen(data):
    paths = named(data, "ppo_cartpole")
    change(paths.info_dir / "ppo_cartpole_t0_derived.json", git_commit="0123456789abcdef+")
    assert read_result(paths).commit == "0123456789+"


def test_another_precision_is_said(data):
    paths = named(data, "ppo_cartpole")
    assert read_result(paths).notes == ()
    change(paths.trial_spec, "ppo_cartpole", "meta", precision="bfloat16")
    assert read_result(paths).notes == ("trained in bfloat16",)


def test_arguments_that_make_another_task(data):
    paths = named(data, "ppo_cartpole")
    change(paths.trial_spec, "ppo_cartpole", "env", name="LunarLander-v3", continuous=True)
    assert read_result(paths).env == "LunarLander-v3 (continuous=True)"


def test_each_run_counts_once_and_what_is_none_is_named(data):
    lines = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message}")
    try:
        runs = find_runs([data / "@latest", data, *data.iterdir(), data / "no_such"])
    finally:
        logger.remove(sink)
    assert sorted(run.spec_name for run in runs) == ["ppo_acrobot", "ppo_cartpole", "reinforce_cartpole"]
    assert len(lines) == 1
    assert "no_such" in lines[0]


def test_no_run_at_all(tmp_path):
    with pytest.raises(SpecError, match=r"^no run in any of these; name run folders"):
        benchmark_page([tmp_path])


def test_a_run_without_a_spec_cannot_be_told(data):
    paths = named(data, "ppo_cartpole")
    paths.trial_spec.write_text(json.dumps({})[:1])
    with pytest.raises(SpecError, match="no whole spec in it"):
        benchmark_page([data])


# --- a page that is already there

SPECS = ("ppo_acrobot", "ppo_cartpole", "reinforce_cartpole")
WRITTEN_PAGE = Path(__file__).parents[2] / "docs/BENCHMARKS.md"


def relabel(paths, label, algorithm):
    change(paths.trial_spec, paths.spec_name, "agent", name=label)
    change(paths.trial_spec, paths.spec_name, "agent", "algorithm", name=algorithm)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        # not in the order of the alphabet, and far from the algorithms beside them
        {"ppo_acrobot": ("A2C", "ActorCritic"), "ppo_cartpole": ("SAC", "SoftActorCritic")},
        {"ppo_cartpole": ("Rainbow", "DoubleDQN"), "reinforce_cartpole": ("DQN", "DQN")},
        {"ppo_cartpole": ("VanillaDQN", "VanillaDQN")},  # of no shipped benchmark
    ],
)
@pytest.mark.parametrize("first", [names for count in (1, 2) for names in itertools.combinations(SPECS, count)])
def test_runs_added_to_a_page_make_the_page_of_all(data, first, labels):
    for name, (label, algorithm) in labels.items():
        relabel(named(data, name), label, algorithm)
    # the mean of these is another when they are rounded
    for index, score in enumerate([100.06, 200.02]):
        change(named(data, "ppo_cartpole").trial_metrics, "sessions", str(index), total_reward_ma=score)
    for name in ("ppo_acrobot", "reinforce_cartpole"):
        change(named(data, name).derived, mode="dev", git_commit=None)
    whole = benchmark_page([data])
    folders = {name: named(data, name).folder for name in SPECS}
    page = data / "page.md"
    page.write_text(benchmark_page([folders[name] for name in first]))
    for name in first:
        shutil.rmtree(folders[name])
    assert extended_page(page, [folder for name, folder in folders.items() if name not in first]) == whole


def test_a_run_that_is_given_replaces_its_row(data, tmp_path):
    page = tmp_path / "page.md"
    paths = named(data, "ppo_cartpole")
    change(paths.derived, mode="dev")
    page.write_text(benchmark_page([data]))
    change(paths.derived, mode="train")
    for index, score in enumerate([90.0, 110.0]):
        change(paths.trial_metrics, "sessions", str(index), total_reward_ma=score)
    assert extended_page(page, [paths.folder]) == benchmark_page([data])


def test_what_stands_in_a_page_stays_as_it_is(data, tmp_path):
    known = read_result(named(data, "ppo_cartpole"))
    nothing = {"scores": (), "curve": (math.nan,) * 10, "wall": math.nan, "seed": None}
    results = [
        known,
        replace(known, run="a", env="a|b (c=1, d=[2, 3])", spec_name="a | b", scores=(-0.04, 1.0, 2.06)),
        replace(known, run="b", wall=4000.0, commit="unknown", max_frame=1234567.0, notes=("this: that", "too")),
        replace(known, run="c", **nothing),
        replace(known, run="d", **nothing, notes=("nothing",)),
        # two trials of one folder
        *(replace(known, run="e", scores=(score,), notes=("a trial of a search",)) for score in (1.0, 2.0)),
    ]
    page = tmp_path / "page.md"
    page.write_text(page_of(results))
    assert extended_page(page, [named(data, "ppo_cartpole").folder]) == page.read_text()
    results[1:1] = [replace(known, run="f", scores=(300.0,))]
    assert page_of(results) != page.read_text()


def test_the_page_of_the_lab_can_be_added_to(data):
    page = extended_page(WRITTEN_PAGE, [data])
    matrix, runs, curves = tables(page)
    old_matrix, old_runs, old_curves = tables(WRITTEN_PAGE.read_text(encoding="utf-8"))
    assert [row for row in matrix if row in old_matrix] == old_matrix
    assert [row for row in runs if row in old_runs] == old_runs
    assert [row for row in curves if row in old_curves] == old_curves
    assert len(runs) == len(curves) == len(old_runs) + 3
    assert page.endswith(WRITTEN_PAGE.read_text(encoding="utf-8").partition("## Notes\n")[2])


def test_columns_whose_algorithm_is_not_known_stay_where_they_are(data, tmp_path):
    there = [named(data, name) for name in ("reinforce_cartpole", "ppo_cartpole")]
    given = named(data, "ppo_acrobot")
    for paths, label, algorithm in zip(there, ("yours", "mine"), ("Reinforce", "PPO"), strict=True):
        relabel(paths, label, algorithm)
    page = tmp_path / "page.md"
    page.write_text(benchmark_page([paths.folder for paths in there]))
    relabel(given, "TD3", "TD3")
    assert "| environment | frames | yours | mine | TD3 |\n" in extended_page(page, [given.folder])
    relabel(given, "mine", "TD3")  # one label is one column, even so
    assert "| environment | frames | yours | mine |\n" in extended_page(page, [given.folder])


def test_the_command_adds_to_the_file(data, tmp_path, capsys):
    page = tmp_path / "docs" / "page.md"
    whole = benchmark_page([data])
    assert main(["benchmark-table", str(named(data, "ppo_cartpole").folder), "-o", str(page)]) == 0
    shutil.rmtree(named(data, "ppo_cartpole").folder)
    assert main(["benchmark-table", str(data), "-o", str(page)]) == 0
    assert page.read_text() == whole
    assert main(["benchmark-table", str(data)]) == 0
    assert capsys.readouterr().out == benchmark_page([data])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (r"(?s).*", "", "no table"),
        (r"(?s).*", "# My notes\n\n| a | b |\n| --- | --- |\n", "no table"),
        (r"\| commit \|", "| version |", "its columns are "),
        (r"## Runs", "## All runs", "no table"),
        (r"## Curves(?s:.)*", "", "no table"),
        (r"\n(?=\| CartPole-v1 \| PPO)", "\n<<<<<<< HEAD\n", "'<<<<<<< HEAD' is no row of a table"),
        (r" \| abcdef012345 \|", " |", "a row of a table has not 12 cells"),
        (r"0 min \d\d s", "soon", ""),
        (r"0 min (\d\d) s", r"0 min \1 sec", "'sec'"),
        (r"4e2(?= \| 0 min)", "some", "could not convert string to float: 'some'"),
        (r"\| REINFORCE \|(?= PPO)", "| Reinforce |", "no column REINFORCE in its matrix"),
        (r"(?s)(.*)ppo_cartpole_2", r"\1other_2", "its runs and its curves are not of the same runs"),
    ],
)
def test_a_file_that_is_no_such_page_is_left_alone(data, tmp_path, capsys, old, new, why):
    page = tmp_path / "page.md"
    text, changed = re.subn(old, new, benchmark_page([data]), count=1)
    assert changed
    page.write_text(text)
    assert main(["benchmark-table", str(data), "-o", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"slm-lab: {page}: not a page of `slm-lab benchmark-table` that runs can be added to: {why}")
    assert line.endswith("; name another file, or move this one away")
    assert page.read_text() == text


def test_where_there_is_no_run_the_folder_of_runs_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for results, hint in (("", ""), ("results", "; DATA_DIR is results")):
        monkeypatch.setenv("DATA_DIR", results)
        assert main(["benchmark-table", "data"]) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert line == f"slm-lab: no run in any of these; name run folders, or the folder that holds them{hint}"


def test_a_folder_is_no_such_page(data, tmp_path, capsys):
    assert main(["benchmark-table", str(data), "-o", str(tmp_path)]) == 2
    assert "Is a directory; name another file" in capsys.readouterr().err
