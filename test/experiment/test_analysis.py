import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.experiment.analysis import (
    SESSION_SCALARS,
    TRIAL_SCALARS,
    align,
    analyze_session,
    analyze_trial,
    consistency,
    efficiency,
    metrics_line,
    moving_average,
    session_metrics,
    stability,
    trial_metrics,
)
from slm_lab.experiment.paths import RunPaths, new_run
from slm_lab.lib.files import RowWriter, read_json, read_rows, write_json

NAN = math.nan
# b = 10, so s = 10, 20, 10, 40
ROWS = {
    "total_reward": np.array([20.0, 30.0, 20.0, 50.0]),
    "frame": np.array([100.0, 200.0, 300.0, 400.0]),
    "opt_step": np.array([0.0, 10.0, 20.0, 30.0]),
}


def spec_of(max_session, rigorous_eval=0):
    return {
        "env": {"name": "CartPole-v1"},
        "meta": {"max_session": max_session, "rigorous_eval": rigorous_eval},
    }


def write_spec(file, spec):
    write_json(file, {"dqn": spec})


def write_session(paths: RunPaths, rows, mode="train"):
    writer = RowWriter(paths.session_df(mode))
    for row in rows:
        writer.append(row)
    writer.close()


def rows_of(returns, every=100):
    return [{"total_reward": r, "frame": every * (i + 1), "opt_step": 10 * i} for i, r in enumerate(returns)]


def test_session_metrics_by_hand():
    scalar = session_metrics(ROWS, baseline=10.0).scalar
    assert tuple(scalar) == SESSION_SCALARS
    assert scalar["frame"] == 400
    assert scalar["total_reward_ma"] == 30.0  # 120 / 4
    assert scalar["strength"] == 20.0  # 80 / 4
    assert scalar["max_strength"] == 40.0
    assert scalar["final_strength"] == 40.0
    # (10/100 + 20/200 + 10/300 + 40/400) / 80 = (1/3) / 80
    assert scalar["sample_efficiency"] == pytest.approx(1 / 240)
    # the row at opt_step 0 adds no s/t: (20/10 + 10/20 + 40/30) / 80 = (23/6) / 80
    assert scalar["training_efficiency"] == pytest.approx(23 / 480)
    # one fall of 10 from rows worth 10 + 20 + 10
    assert scalar["stability"] == pytest.approx(0.75)


def test_local_series_by_hand():
    local = session_metrics(ROWS, baseline=10.0).local
    assert local["frames"].tolist() == [100, 200, 300, 400]
    assert local["mean_returns"].tolist() == [20, 30, 20, 50]
    assert local["mean_returns_ma"].tolist() == pytest.approx([20, 25, 70 / 3, 30])
    assert local["strengths"].tolist() == [10, 20, 10, 40]
    assert local["stabilities"][1:].tolist() == pytest.approx([1.0, 1 - 10 / 30, 0.75])
    assert math.isnan(local["stabilities"][0])
    assert local["sample_efficiencies"].tolist() == pytest.approx([0.01, 0.2 / 30, (7 / 30) / 40, 1 / 240])


def test_moving_average_forgets_what_is_older_than_its_window():
    x = np.arange(1.0, 151.0)
    ma = moving_average(x)
    assert ma[99] == 50.5  # 1..100
    assert ma[149] == 100.5  # 51..150
    assert session_metrics({"total_reward": x, "frame": x}, 0.0).scalar["total_reward_ma"] == 100.5


def test_rows_without_a_return_count_for_nothing_but_the_frame():
    gaps = {
        "total_reward": np.array([NAN, 20.0, 30.0, NAN, 20.0, 50.0, NAN]),
        "frame": np.array([50.0, 100.0, 200.0, 250.0, 300.0, 400.0, 450.0]),
        "opt_step": np.array([0.0, 0.0, 10.0, 15.0, 20.0, 30.0, 40.0]),
    }
    assert session_metrics(gaps, 10.0).scalar == session_metrics(ROWS, 10.0).scalar | {"frame": 450.0}


def test_one_row_is_a_valid_run():
    scalar = session_metrics({name: column[1:2] for name, column in ROWS.items()}, 10.0).scalar
    assert scalar["strength"] == scalar["max_strength"] == scalar["final_strength"] == 20.0
    assert scalar["sample_efficiency"] == pytest.approx(1 / 200)
    assert math.isnan(scalar["stability"])  # nothing could be lost yet


@pytest.mark.parametrize("rows", [{}, {"total_reward": np.array([NAN]), "frame": np.array([7.0])}])
def test_no_finished_episode_gives_no_metric_and_no_crash(rows):
    scalar = session_metrics(rows, 10.0).scalar
    assert all(math.isnan(value) for name, value in scalar.items() if name != "frame")
    trial = trial_metrics({0: session_metrics(rows, 10.0)}, 10.0)
    assert math.isnan(trial["scalar"]["consistency"])
    assert trial["over_seeds"]["total_reward_ma"]["values"].size == 0


def test_as_good_as_random_has_strength_zero_and_no_quotients():
    flat = {"total_reward": np.array([10.0, 10.0]), "frame": np.array([1.0, 2.0]), "opt_step": np.array([1.0, 2.0])}
    scalar = session_metrics(flat, 10.0).scalar
    assert scalar["strength"] == 0.0
    assert math.isnan(scalar["sample_efficiency"])
    assert math.isnan(scalar["stability"])


def test_consistency_by_hand():
    # std (n − 1) of (10, 30), (20, 20), (10, 30) is 10√2, 0, 10√2; the means are 20 each
    value = consistency(np.array([[10.0, 20.0, 10.0], [30.0, 20.0, 30.0]]))
    assert value[-1] == pytest.approx(1 - 2 * 20 * math.sqrt(2) / 60)
    assert value[0] == pytest.approx(1 - 2 * 10 * math.sqrt(2) / 20)


def test_one_session_is_consistent_with_itself():
    assert consistency(np.array([[10.0, 20.0]])).tolist() == [1.0, 1.0]
    assert math.isnan(consistency(np.array([[0.0]]))[-1])


def test_trial_truncates_to_the_shortest_session():
    short = session_metrics(
        {"total_reward": np.array([40.0, 30.0, 40.0]), "frame": ROWS["frame"][:3], "opt_step": np.zeros(3)}, 10.0
    )
    trial = trial_metrics({0: session_metrics(ROWS, 10.0), 1: short}, 10.0)
    assert trial["scalar"]["consistency"] == pytest.approx(1 - 2 * 20 * math.sqrt(2) / 60)
    assert trial["scalar"]["frame"] == 400  # of session 0
    assert trial["scalar"]["strength"] == pytest.approx((20 + 80 / 3) / 2)
    assert trial["scalar"]["total_reward_ma"] == pytest.approx((30 + 110 / 3) / 2)
    assert tuple(trial["scalar"]) == TRIAL_SCALARS
    assert trial["local"]["frames"].tolist() == [100, 200, 300]
    assert trial["local"]["mean_returns"].tolist() == [30, 30, 30]


def test_sessions_are_compared_at_the_same_frame():
    # the first episode of the second session ended one row later
    late = {name: column[1:] for name, column in ROWS.items()}
    sessions = [session_metrics(rows, 10.0).local for rows in (ROWS, late)]
    frames, values = align(sessions, "strengths")
    assert frames.tolist() == [200, 300, 400]
    assert values.tolist() == [[20, 10, 40], [20, 10, 40]]


def test_sessions_on_other_frames_are_compared_row_by_row():
    sessions = [{"frames": np.array([1.0, 2.0, 3.0]), "y": np.array([1.0, 2.0, 3.0])}]
    sessions.append({"frames": np.array([10.0, 20.0]), "y": np.array([5.0, 6.0])})
    frames, values = align(sessions, "y")
    assert frames.tolist() == [1, 2]
    assert values.tolist() == [[1, 2], [5, 6]]


def test_statistics_over_seeds_by_hand():
    sessions = {
        index: session_metrics({"total_reward": np.array([value]), "frame": np.array([1.0])}, 0.0)
        for index, value in enumerate([100.0, 1.0, 2.0, -100.0])
    }
    final = trial_metrics(sessions, 0.0)["over_seeds"]["final_total_reward"]
    assert final["values"].tolist() == [100.0, 1.0, 2.0, -100.0]
    assert final["mean"] == 0.75
    assert final["iqm"] == 1.5
    assert -100.0 <= final["ci95"][0] < 1.5 < final["ci95"][1] <= 100.0
    assert final["std"] == pytest.approx(np.sqrt((99.25**2 + 0.25**2 + 1.25**2 + 100.75**2) / 3))


def test_a_metric_that_one_seed_lacks_is_the_mean_of_the_others():
    one_row = {name: column[:1] for name, column in ROWS.items()}
    trial = trial_metrics({0: session_metrics(ROWS, 10.0), 1: session_metrics(one_row, 10.0)}, 10.0)
    assert trial["scalar"]["stability"] == pytest.approx(0.75)


def test_a_session_without_a_score_does_not_end_the_curve_of_the_others():
    none = {"total_reward": np.array([np.nan]), "frame": ROWS["frame"][-1:]}
    trial = trial_metrics({0: session_metrics(ROWS, 10.0), 1: session_metrics(none, 10.0)}, 10.0)
    assert trial["local"]["frames"].tolist() == ROWS["frame"].tolist()
    assert trial["scalar"]["consistency"] == 1


@given(st.lists(st.floats(0.5, 1e4), min_size=2, max_size=20), st.floats(0.1, 100.0))
def test_quotient_metrics_do_not_depend_on_the_scale_of_rewards(returns, scale):
    s, t = np.array(returns), np.arange(1.0, len(returns) + 1)
    assert efficiency(s * scale, t)[-1] == pytest.approx(efficiency(s, t)[-1])
    assert stability(s * scale)[-1] == pytest.approx(stability(s)[-1], abs=1e-9)
    assert consistency(np.stack([s, s]))[-1] == pytest.approx(1.0)


@given(st.lists(st.floats(0.5, 1e4), min_size=2, max_size=20))
def test_never_falling_is_perfectly_stable(returns):
    assert stability(np.sort(returns))[-1] == 1.0


def test_the_log_line():
    scalar = dict(zip(TRIAL_SCALARS, (1e4, 155.27, 132.3, 150.0, 140.1, 2.5e-4, 0.013, 0.99, NAN), strict=True))
    assert metrics_line(scalar) == (
        "trial_metrics: frame:1.00e+04 | total_reward_ma:155.27 | strength:132.30 | max_strength:150.00 | "
        "final_strength:140.10 | sample_efficiency:2.50e-04 | training_efficiency:0.01 | stability:0.99 | "
        "consistency:nan"
    )


def test_analyze_session_without_rigorous_evaluation_completes_the_layout(tmp_path):
    paths = new_run(tmp_path, "dqn_s1").for_session(0)
    write_spec(paths.session_spec, spec_of(1))
    rows = [row | {"loss": 0.5, "entropy": NAN} for row in rows_of([None, 20.0, 30.0])]
    write_session(paths, rows)
    scalars = analyze_session(paths, 10.0)
    assert scalars["eval"] == scalars["train"]
    assert scalars["train"]["strength"] == 15.0
    assert read_json(paths.session_metrics_scalar("eval")) == read_json(paths.session_metrics_scalar("train"))
    written = read_json(paths.session_metrics("train"))
    assert written["scalar"]["strength"] == 15.0
    assert written["local"]["strengths"] == [10.0, 20.0]
    assert paths.session_df("eval").read_text() == paths.session_df("train").read_text()
    prefix = "dqn_s1_t0_s0_session_graph_train"
    assert sorted(file.name for file in paths.graph_dir.iterdir()) == [
        f"{prefix}_loss_vs_frame.html",  # there is no explore_var, and entropy is empty throughout
        f"{prefix}_mean_returns_ma_vs_frames.html",
        f"{prefix}_mean_returns_vs_frames.html",
    ]


def test_analyze_session_and_trial_with_rigorous_evaluation_score_the_evaluation(tmp_path):
    run = new_run(tmp_path, "dqn")
    paths = run.for_session(0)
    write_spec(paths.session_spec, spec_of(1, rigorous_eval=8))
    write_session(paths, rows_of([20.0, 30.0]))
    write_session(paths, [{"total_reward": 110.0, "frame": 200}], mode="eval")
    scalars = analyze_session(paths, 10.0, rigorous=True)
    assert scalars["train"]["strength"] == 15.0
    assert scalars["eval"]["strength"] == 100.0
    assert math.isnan(scalars["eval"]["training_efficiency"])  # an evaluation takes no optimiser step
    assert len(list(paths.graph_dir.glob("*_session_graph_eval_mean_returns*_vs_frames.html"))) == 2
    assert read_rows(paths.session_df("eval"))["total_reward"].tolist() == [110.0]
    metrics = analyze_trial(run, spec_of(1, rigorous_eval=8), 10.0)
    assert metrics["scalar"]["strength"] == 100.0


def test_analyze_trial_writes_scalars_twice_and_graphs_twice(tmp_path):
    run = new_run(tmp_path, "dqn")
    for index, returns in enumerate([[20.0, 30.0, 20.0, 50.0], [40.0, 30.0, 40.0]]):
        write_session(run.for_session(index), rows_of(returns))
    metrics = analyze_trial(run, spec_of(2), 10.0)
    scalar = read_json(run.trial_metrics_scalar_top)
    assert scalar == read_json(run.trial_metrics_scalar)
    assert scalar["consistency"] == pytest.approx(1 - 2 * 20 * math.sqrt(2) / 60)
    assert scalar["stability"] == metrics["scalar"]["stability"]
    full = read_json(run.trial_metrics)
    assert full["random_baseline"] == 10.0
    assert full["over_seeds"]["final_total_reward"]["values"] == [50.0, 40.0]
    assert full["sessions"]["1"]["final_total_reward"] == 40.0
    for name in ("mean_returns_vs_frames", "mean_returns_ma_vs_frames"):
        assert run.trial_graph(name).read_bytes() == run.trial_graph_top(name).read_bytes()


def test_a_trial_goes_on_without_a_session_that_left_no_rows(tmp_path, log_messages):
    run = new_run(tmp_path, "dqn")
    write_session(run.for_session(1), rows_of([20.0]))
    metrics = analyze_trial(run, spec_of(2), 10.0)
    assert metrics["over_seeds"]["final_total_reward"]["values"].tolist() == [20.0]
    assert list(metrics["sessions"]) == ["1"]
    assert "dqn_t0_s0_session_df_train.csv" in "".join(log_messages)


def test_a_graph_that_cannot_be_drawn_does_not_stop_the_metrics(tmp_path, log_messages):
    run = new_run(tmp_path, "dqn")
    write_session(run.for_session(0), rows_of([20.0]))
    run.graph_dir.rmdir()
    analyze_session(run.for_session(0), 10.0)
    analyze_trial(run, spec_of(1), 10.0)
    assert read_json(run.trial_metrics_scalar)["strength"] == 10.0
    assert "could not be drawn" in "".join(log_messages)
