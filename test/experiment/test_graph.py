import base64

import numpy as np
import pytest

from slm_lab.experiment.graph import draw_session, draw_trial
from slm_lab.experiment.paths import new_run
from slm_lab.lib.plot import read_figure


def decoded(values):
    """Return the numbers of a figure's JSON, where plotly packs arrays as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return values


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path, "dqn")


def series(returns):
    returns = np.array(returns)
    return {"frames": np.arange(1.0, returns.size + 1) * 100, "mean_returns": returns, "mean_returns_ma": returns}


def test_session_graph_shows_the_returns_over_frames_and_the_random_policy(run):
    rows = {"frame": np.array([100.0]), "loss": np.array([1.0])}
    draw_session(run.for_session(0), "eval", rows, series([1.0, 5.0]), baseline=-2.5)
    assert not run.for_session(0).session_graph("eval", "loss_vs_frame").exists()  # the training graphs show it
    figure = read_figure(run.for_session(0).session_graph("eval", "mean_returns_vs_frames"))
    lines = {trace["name"]: trace for trace in figure["data"]}
    assert decoded(lines["session"]["x"]) == [100, 200]
    assert decoded(lines["session"]["y"]) == [1, 5]
    assert decoded(lines["random policy"]["y"]) == [-2.5, -2.5]
    title = figure["layout"]["title"]["text"]
    assert "dqn" in title
    assert "evaluation" in title
    assert "frames" in figure["layout"]["xaxis"]["title"]["text"]


def test_columns_are_drawn_over_the_frame_where_they_hold_anything(run):
    rows = {
        "frame": np.array([100.0, 200.0]),
        "loss": np.array([np.nan, 0.5]),
        "explore_var": np.array([1.0, 0.9]),
        "entropy": np.array([np.nan, np.nan]),
        "lr": np.array([0.1, 0.1]),
    }
    draw_session(run.for_session(3), "train", rows, series([1.0]), baseline=0.0)
    names = {file.name.removeprefix("dqn_t0_s3_session_graph_train_") for file in run.graph_dir.iterdir()}
    assert names == {
        "mean_returns_vs_frames.html",
        "mean_returns_ma_vs_frames.html",
        "loss_vs_frame.html",
        "explore_var_vs_frame.html",
    }
    [loss] = read_figure(run.for_session(3).session_graph("train", "loss_vs_frame"))["data"]
    assert decoded(loss["x"]) == [100, 200]


def test_trial_graph_has_each_seed_their_mean_and_one_deviation(run):
    sessions = {0: series([0.0, 2.0, 9.0]), 1: series([4.0, 6.0])}
    means = (np.array([100.0, 200.0]), np.array([[0.0, 2.0], [4.0, 6.0]]))
    draw_trial(run, sessions, {"mean_returns": means, "mean_returns_ma": means}, baseline=1.0)
    traces = read_figure(run.trial_graph("mean_returns_vs_frames"))["data"]
    values = [decoded(trace["y"]) for trace in traces]
    assert [0, 2, 9] in values  # a longer session is drawn to its end
    assert [4, 6] in values
    assert [2, 4] in values
    spread = np.sqrt(8.0)  # of 0 and 4, n − 1
    assert np.array([2 + spread, 4 + spread, 4 - spread, 2 - spread]).tolist() in [
        pytest.approx(value) for value in values if len(value) == 4
    ]
    shown = [trace["name"] for trace in traces if trace["showlegend"]]
    assert len(shown) == len(set(shown)) == 3


@pytest.mark.parametrize("returns", [[], [3.0]])
def test_a_trial_of_one_session_with_few_rows_has_its_graphs(run, returns):
    one = series(returns)
    means = (one["frames"], one["mean_returns"][None])
    draw_trial(run, {0: one}, {"mean_returns": means, "mean_returns_ma": means}, baseline=0.0)
    traces = read_figure(run.trial_graph_top("mean_returns_ma_vs_frames"))["data"]
    assert [decoded(trace["y"]) for trace in traces if trace["name"] == "session"] == [returns]
