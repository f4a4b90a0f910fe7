import math

import numpy as np
import pytest

from slm_lab.experiment.analysis import session_metrics, trial_metrics
from slm_lab.experiment.paths import new_run
from slm_lab.experiment.report import report_lines
from slm_lab.lib.files import write_json


def finished(tmp_path, finals, name="dqn"):
    """A run whose sessions end with these returns; NaN for one that never finished an episode."""
    paths = new_run(tmp_path, name)
    sessions = {
        index: session_metrics({"total_reward": np.array([0.0, final]), "frame": np.array([500.0, 1000.0])}, 10.0)
        for index, final in enumerate(finals)
    }
    write_json(paths.trial_metrics, trial_metrics(sessions, 10.0))
    return paths


def test_seeds_are_summed_up_by_mean_iqm_and_interval(tmp_path):
    lines = list(report_lines(finished(tmp_path, [10.0, 20.0, 30.0, 400.0])))
    at_the_end = next(line for line in lines if line.startswith("final_total_reward"))
    # the outermost quarters do not count in the IQM
    assert "mean 115.00  IQM 25.00  95 % interval [" in at_the_end
    assert "(4 seeds;" in at_the_end
    low, high = (float(number) for number in at_the_end.split("[")[1].split("]")[0].split(", "))
    assert 10 <= low < 25 < high <= 400
    average = next(line for line in lines if line.startswith("total_reward_ma"))
    assert "mean 57.50" in average  # of the halves, as every run began with 0
    assert any(line.startswith("random_baseline") and "10.00" in line for line in lines)


def test_one_seed_tells_no_interval(tmp_path):
    lines = list(report_lines(finished(tmp_path, [10.0])))
    assert any("95 % interval unknown  (1 seed;" in line for line in lines)


def test_a_run_without_a_score_has_dashes(tmp_path):
    paths = finished(tmp_path, [])
    paths.trial_metrics.unlink()
    rows = {"total_reward": np.array([math.nan]), "frame": np.array([500.0])}
    write_json(paths.trial_metrics, trial_metrics({0: session_metrics(rows, 10.0)}, 10.0))
    lines = list(report_lines(paths))
    assert any("mean –  IQM –  95 % interval unknown  (0 seeds" in line for line in lines)
    assert "no episode has ended, so there is no score" in lines
    assert not any("no score" in line for line in report_lines(finished(tmp_path, [10.0])))


def test_graphs_are_named_where_they_are(tmp_path):
    paths = finished(tmp_path, [10.0])
    assert not any(line.startswith("graphs") for line in report_lines(paths))
    for graph in (paths.trial_graph_top("mean_returns_vs_frames"), paths.trial_graph("mean_returns_vs_frames")):
        graph.write_text("")
    lines = list(report_lines(paths))
    start = next(number for number, line in enumerate(lines) if line.startswith("graphs"))
    assert lines[start].split() == ["graphs", str(paths.trial_graph_top("mean_returns_vs_frames"))]
    assert lines[start + 1].split() == [str(paths.graph_dir)]


@pytest.mark.parametrize("data", ["data", "my data"])
def test_the_next_commands_can_be_pasted(tmp_path, data):
    import shlex

    paths = finished(tmp_path / data, [10.0])
    commands = [shlex.split(line) for line in report_lines(paths) if line.startswith("  slm-")]
    folder = str(paths.folder)
    start = ["slm-lab", str(paths.spec), "dqn"]
    assert commands == [
        [*start, f"enjoy@{folder}", "--render"],
        [*start, f"train@{folder}", "-s", "env.max_frame=2000"],
        ["slm-retro", folder],
    ]
