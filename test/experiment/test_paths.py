import re

import pytest

from slm_lab.experiment import paths as paths_module
from slm_lab.experiment.paths import RunPaths, find_run, latest_run, new_run
from slm_lab.lib.files import write_json
from slm_lab.spec.errors import SpecError


def test_names_of_the_lineage(tmp_path):
    run = RunPaths(tmp_path, "dqn")
    session = run.for_session(1)
    names = {
        run.spec: "dqn_spec.json",
        run.trial_spec: "dqn_t0_spec.json",
        session.session_spec: "dqn_t0_s1_spec.json",
        session.session_df("train"): "info/dqn_t0_s1_session_df_train.csv",
        session.session_metrics("eval"): "info/dqn_t0_s1_session_metrics_eval.json",
        session.session_metrics_scalar("train"): "info/dqn_t0_s1_session_metrics_scalar_train.json",
        run.trial_metrics: "info/dqn_t0_trial_metrics.json",
        run.trial_metrics_scalar: "info/dqn_t0_trial_metrics_scalar.json",
        run.trial_metrics_scalar_top: "dqn_t0_trial_metrics_scalar.json",
        run.trial_data_dict: "info/dqn_trial_data_dict.json",
        run.experiment_df: "info/dqn_experiment_df.csv",
        run.experiment_df_top: "dqn_experiment_df.csv",
        run.experiment_graph(): "graph/dqn_experiment_graph.html",
        run.multi_trial_graph("mean_returns_vs_frames"): "graph/dqn_multi_trial_graph_mean_returns_vs_frames.html",
        session.session_graph("eval", "mean_returns_ma_vs_frames"): (
            "graph/dqn_t0_s1_session_graph_eval_mean_returns_ma_vs_frames.html"
        ),
        run.trial_graph("mean_returns_vs_frames"): "graph/dqn_t0_trial_graph_mean_returns_vs_frames.html",
        run.trial_graph_top("mean_returns_vs_frames"): "dqn_t0_trial_graph_mean_returns_vs_frames.html",
        run.run_log: "log/dqn.log",
        run.trial_log: "log/dqn_t0.log",
        session.session_log: "log/dqn_t0_s1.log",
        run.for_trial(12).trial_spec: "dqn_t12_spec.json",
    }
    assert {path.relative_to(tmp_path).as_posix() for path in names} == set(names.values())
    for path, name in names.items():
        assert path == tmp_path / name


def test_a_session_file_without_a_session_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="for_session"):
        RunPaths(tmp_path, "dqn").session_df("train")


def test_new_run_makes_its_folders_and_is_the_latest(tmp_path):
    run = new_run(tmp_path / "data", "dqn")
    assert re.fullmatch(r"dqn_\d{4}_\d{2}_\d{2}_\d{6}", run.folder.name)
    assert {folder.name for folder in run.folder.iterdir()} == {"info", "model", "graph", "log"}
    assert (tmp_path / "data" / "@latest").resolve() == run.folder.resolve()
    assert latest_run(tmp_path / "data") == run


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_where_nothing_can_be_written_is_an_error_that_names_it(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(
        SpecError, match=rf"--data .*{name}: no run can be written there: (File exists|Not a directory); name a"
    ):
        new_run(tmp_path / name, "dqn")


def test_a_longer_name_is_found_where_it_is_asked_for(tmp_path):
    new_run(tmp_path, "dqn_pong")
    new_run(tmp_path, "dqnx")
    assert latest_run(tmp_path, "dqn") is None
    assert latest_run(tmp_path, "dqn", longer=True).spec_name == "dqn_pong"


def test_runs_of_one_second_are_apart_and_in_order(tmp_path):
    runs = [new_run(tmp_path, "dqn") for _ in range(4)]
    names = [run.folder.name for run in runs]
    assert len(set(names)) == 4
    assert sorted(names) == names
    assert latest_run(tmp_path, "dqn") == runs[-1]
    assert (tmp_path / "@latest").resolve() == runs[-1].folder.resolve()


def test_latest_run_wants_exactly_the_name(tmp_path):
    for name in ("dqn_2026_01_01_000000", "dqn_per_2026_03_01_000000", "dqn_2025_12_31_235959", "dqn_2026_01_02"):
        (tmp_path / name).mkdir()
    (tmp_path / "dqn_2026_09_09_000000").write_text("a file is no run")
    found = latest_run(tmp_path, "dqn")
    assert found == RunPaths(tmp_path / "dqn_2026_01_01_000000", "dqn")
    assert latest_run(tmp_path) == RunPaths(tmp_path / "dqn_per_2026_03_01_000000", "dqn_per")
    assert latest_run(tmp_path, "ppo") is None
    assert latest_run(tmp_path / "nowhere") is None


def test_latest_is_a_text_file_where_links_are_not_possible(tmp_path, monkeypatch):
    def no_links(*_args, **_kwargs):
        raise OSError("not permitted")

    monkeypatch.setattr(paths_module.Path, "symlink_to", no_links)
    run = new_run(tmp_path, "dqn")
    write_json(run.spec, {})
    assert (tmp_path / "@latest").read_text().strip() == run.folder.name
    assert find_run(tmp_path / "@latest").folder == run.folder


@pytest.mark.parametrize("name", ["dqn", "dqn_shared_t0", "ppo_s1", "a_t0_s0", "ppo[x]"])
def test_find_run_by_folder_by_spec_file_and_by_latest(tmp_path, monkeypatch, name):
    run = new_run(tmp_path, name)
    session = run.for_trial(2).for_session(3)
    for file in (run.spec, session.trial_spec, session.session_spec):
        write_json(file, {name: {}})
    assert find_run(run.folder) == run
    assert find_run(run.spec) == run
    assert find_run(session.trial_spec) == run.for_trial(2)
    assert find_run(session.session_spec) == session
    assert find_run(tmp_path / "@latest").spec_name == name
    monkeypatch.chdir(run.folder)
    assert find_run(".").spec_name == name


def test_find_run_in_a_folder_that_was_renamed(tmp_path):
    run = new_run(tmp_path, "dqn_t0")
    write_json(run.trial_spec, {"dqn_t0": {}})  # the run's own spec was lost as well
    moved = run.folder.rename(tmp_path / "my best run")
    assert find_run(moved) == RunPaths(moved, "dqn_t0")


def test_what_is_no_run_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SpecError, match=r"gone.*no such"):
        find_run(tmp_path / "gone")
    (tmp_path / "notes_2026_01_01_000000").mkdir()
    with pytest.raises(SpecError, match="notes_2026_01_01_000000"):
        find_run(tmp_path / "notes_2026_01_01_000000")
    run = new_run(tmp_path, "dqn")
    write_json(run.spec, {"dqn": {}})
    (run.folder / "other.json").write_text("{}")
    with pytest.raises(SpecError, match=r"other\.json"):
        find_run(run.folder / "other.json")
