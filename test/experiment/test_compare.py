"""What is said of runs side by side, against numbers worked out by hand."""

import csv
import json
import shutil

import numpy as np
import pytest
from made_runs import made_run

from slm_lab.experiment.compare import (
    aggregates,
    at_frames,
    compare,
    efficiency_curves,
    estimate,
    improvements,
    profiles,
)
from slm_lab.experiment.comparison_page import Summary, terminal_text, write_all
from slm_lab.lib.plot import read_figure
from slm_lab.lib.stats import iqm, mean_score
from slm_lab.spec import SpecError


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/no/browser/here")


def flat(*scores, rows=3):
    """Curves that stay where they are, so that the score of each is known."""
    return [[float(score)] * rows for score in scores]


@pytest.fixture
def data(tmp_path):
    """Two algorithms on two environments; what random actions get and the references are round numbers."""
    made_run(tmp_path / "data", "ppo_a", flat(10, 20, 30), env="A", label="PPO")
    made_run(tmp_path / "data", "ppo_b", flat(-100, -50), env="B", label="PPO", baseline=-200.0)
    made_run(tmp_path / "data", "dqn_a", flat(10, 40, 50), env="A", label="DQN")
    made_run(tmp_path / "data", "dqn_b", flat(-150, -100), env="B", label="DQN", baseline=-200.0)
    return tmp_path / "data"


@pytest.fixture
def references(tmp_path):
    file = tmp_path / "references.json"
    file.write_text('{"A": 100, "B": 0}')
    return file


def only(data, name):
    (folder,) = data.glob(f"{name}_2*")
    return folder


def test_scores_are_normalised_by_random_actions_and_the_reference(data, references):
    comparison = compare([str(data)], references)
    assert comparison.names == ["DQN", "PPO"]
    assert comparison.shared == comparison.envs == ["A", "B"]
    assert [task.tolist() for task in comparison.tasks("PPO")] == [[0.1, 0.2, 0.3], [0.5, 0.75]]
    assert [task.tolist() for task in comparison.tasks("DQN")] == [[0.1, 0.4, 0.5], [0.25, 0.5]]


def test_aggregates_by_hand(data, references):
    ppo = aggregates(compare([str(data)], references))["PPO"]
    assert ppo["mean"].value == pytest.approx((0.2 + 0.625) / 2)
    assert ppo["median"].value == pytest.approx((0.2 + 0.625) / 2)
    assert ppo["IQM"].value == pytest.approx((0.2 + 0.3 + 0.5) / 3)  # of five seeds, one off each end
    for found in ppo.values():
        assert 0.1 <= found.low < found.value < found.high <= 0.75


def test_probability_of_improvement_by_hand(data, references):
    found = improvements(compare([str(data)], references))
    assert list(found) == [("DQN", "PPO")]
    # A: 10 ties once and loses twice, 40 and 50 win; B: -150 loses twice, -100 ties once and loses once
    assert found["DQN", "PPO"].value == pytest.approx(((0.5 + 3 + 3) / 9 + 0.5 / 4) / 2)


def test_profiles_by_hand(data, references):
    thresholds, found = profiles(compare([str(data)], references))
    assert (thresholds[0], thresholds[-1]) == (0.0, 1.0)
    at = np.searchsorted(thresholds, 0.4501)
    assert found["PPO"].value[at] == pytest.approx((0 + 1) / 2)
    assert found["DQN"].value[at] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert (found["DQN"].value[0], found["DQN"].value[-1]) == (1.0, 0.0)


def test_the_same_runs_give_the_same_intervals(data, references):
    one, two = (aggregates(compare([str(data)], references))["PPO"]["IQM"] for _ in range(2))
    assert (one.low, one.high) == (two.low, two.high)


# --- curves


def test_a_curve_at_other_frames_is_linear_and_ends_where_it_ends():
    there = at_frames(np.array([100.0, 300.0]), np.array([1.0, 5.0]), np.array([50.0, 100.0, 200.0, 300.0, 301.0]))
    assert np.isnan(there[[0, -1]]).all()
    assert there[1:-1].tolist() == [1.0, 3.0, 5.0]


def test_curves_of_unequal_length_end_with_their_shortest_seed(tmp_path, references):
    long, short = [0.0, 10.0, 20.0, 30.0], [10.0, 20.0]
    made_run(tmp_path / "data", "a", [long, long], env="A", label="whole")
    made_run(tmp_path / "data", "b", [long, short], env="A", label="cut")
    comparison = compare([str(tmp_path / "data")], references)
    curves = efficiency_curves(comparison, "A")
    (grid, whole), (same_grid, cut) = curves["whole"], curves["cut"]
    assert grid.tolist() == same_grid.tolist()
    assert grid[-1] == 400
    assert np.isnan(whole.value[grid < 100]).all()
    assert np.isfinite(whole.value[grid >= 100]).all()
    assert np.isnan(cut.value[grid > 200]).all()
    assert cut.value[grid == 200] == 15.0  # not 10, as it would be if the seed that ended left the mean
    assert (cut.low[grid == 200], cut.high[grid == 200]) == (10.0, 20.0)
    assert whole.value[grid == 300] == 20.0
    normalised = efficiency_curves(comparison)["whole"][1]
    assert normalised.value[grid == 300] == 0.2


def test_across_environments_a_curve_is_the_iqm_of_all_seeds(data, references):
    grid, found = efficiency_curves(compare([str(data)], references))["DQN"]
    assert (grid[-1], len(grid)) == (300, 100)
    assert found.value[-1] == pytest.approx(iqm([0.1, 0.4, 0.5, 0.25, 0.5]))
    assert found.low[-1] < found.value[-1] < found.high[-1]


def test_across_environments_curves_go_as_far_as_the_shortest(tmp_path, references):
    made_run(tmp_path, "a", flat(10, 20, rows=10), env="A")
    made_run(tmp_path, "b", flat(-10, -20, rows=3), env="B", baseline=-200.0)
    comparison = compare([str(tmp_path)], references)
    assert efficiency_curves(comparison)["PPO"][0][-1] == 300
    assert efficiency_curves(comparison, "A")["PPO"][0][-1] == 1000


# --- what is compared


def test_runs_that_would_fall_together_are_named_by_spec_or_by_folder(tmp_path):
    folders = [made_run(tmp_path, name, flat(score)).folder for name, score in [("x", 1), ("x", 2), ("y", 3)]]
    comparison = compare(list(map(str, folders)))
    assert comparison.names == [folders[0].name, folders[1].name, "y"]
    assert compare([str(tmp_path)]).names == ["x", "y"]  # of a folder of runs, the newest of each spec
    assert compare([str(tmp_path)]).scores["x"]["CartPole-v1"].tolist() == [2.0]


def test_a_name_of_ones_own_takes_all_runs_of_a_folder_together(tmp_path):
    for score in (1, 2):
        made_run(tmp_path / "old", "x", flat(score))
    made_run(tmp_path / "new", "x", flat(5, 6))
    comparison = compare([f"old={tmp_path / 'old'}", f"new={tmp_path / 'new'}"])
    assert comparison.scores["old"]["CartPole-v1"].tolist() == [1.0, 2.0]
    assert comparison.scores["new"]["CartPole-v1"].tolist() == [5.0, 6.0]


def test_a_run_that_is_named_twice_counts_once(data, references):
    comparison = compare([str(data), str(only(data, "ppo_a")), str(data / "@latest")], references)
    assert comparison.scores["PPO"]["A"].tolist() == [10.0, 20.0, 30.0]


def test_environments_that_not_all_have_are_left_out_and_named(data, references):
    shutil.rmtree(only(data, "dqn_b"))
    comparison = compare([str(data)], references)
    assert comparison.shared == ["A"]
    assert len(comparison.tasks("PPO")) == 1
    assert "not every one has B: left out across environments" in comparison.notes


def test_without_a_reference_the_best_stands_in_and_is_named(data):
    comparison = compare([str(data)])
    assert comparison.references == {"A": pytest.approx(100 / 3), "B": -75.0}
    assert "B: no reference score; the best mean of those compared, -75, stands in" in comparison.notes


def test_references_ship_with_the_lab(tmp_path):
    made_run(tmp_path, "x", flat(260.955), baseline=22.97)
    assert compare([str(tmp_path)]).tasks("PPO")[0] == pytest.approx(0.5)


def test_a_seed_against_several_has_no_interval(tmp_path):
    made_run(tmp_path, "x", flat(100), label="one")
    made_run(tmp_path, "y", flat(50, 150), label="two")
    comparison = compare([str(tmp_path)])
    found = improvements(comparison)["one", "two"]
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert np.isfinite(aggregates(comparison)["two"]["mean"].low)


def test_one_seed_has_no_interval(tmp_path):
    made_run(tmp_path, "x", flat(100))
    found = aggregates(compare([str(tmp_path)]))["PPO"]["IQM"]
    assert np.isnan([found.low, found.high]).all()
    assert "100.0 –" in terminal_text(Summary(compare([str(tmp_path)])))


def test_few_seeds_are_named_where_the_interval_goes_from_the_worst_to_the_best(tmp_path):
    made_run(tmp_path, "x", flat(1, 2, 4), label="three")
    made_run(tmp_path, "y", flat(1, 2, 3, 4), label="four")
    made_run(tmp_path, "z", flat(7), label="one")
    comparison = compare([str(tmp_path)])
    (note,) = (note for note in comparison.notes if "seeds" in note)
    assert note.startswith("three: with fewer than 4 seeds ")
    three, four = (estimate(mean_score, [comparison.scores[name]["CartPole-v1"]]) for name in ("three", "four"))
    assert (three.low, three.high) == (1, 4)
    assert 1 < four.low < four.high < 4


def test_what_is_missing_is_said(data, references, log_messages):
    only(data, "ppo_a").joinpath("info/ppo_a_t0_s1_session_df_eval.csv").write_text("")
    next(only(data, "dqn_b").glob("info/*trial_metrics.json")).unlink()
    comparison = compare([str(data)], references)
    assert any("no curve of session 1: no return in its rows" in note for note in comparison.notes)
    assert "slm-retro" in "".join(log_messages)
    assert comparison.shared == ["A"]


@pytest.mark.parametrize(
    ("content", "say"),
    [
        (None, "cannot be read: No such file or directory; write"),
        ("[1", "cannot be read"),
        ("[1]", "environment: score"),
        ('{"A": "high"}', "environment: score"),
        ('{"A": 0}', "A: the reference score 0 is not above that of random actions, 0"),
    ],
)
def test_bad_references(data, tmp_path, content, say):
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SpecError, match=say) as error:
        compare([str(data)], file)
    assert "\n" not in str(error.value)


def test_with_nothing_in_common_each_environment_still_has_its_table(data, references, tmp_path):
    made_run(data, "sac_c", flat(1, 2), env="C", label="SAC")
    summary = Summary(compare([str(data)], references))
    assert "no environment that all have: nothing can be said across environments" in summary.comparison.notes
    assert (summary.aggregates, summary.profiles) == ({}, {})
    assert list(summary.improvements) == [("DQN", "PPO")]  # those two have A and B
    assert summary.improvements["DQN", "PPO"].value == pytest.approx(((0.5 + 3 + 3) / 9 + 0.5 / 4) / 2)
    assert not {"aggregates.html", "sample_efficiency.html"} & {
        file.name for file in write_all(summary, tmp_path / "o")
    }
    assert "C (random actions 0, reference 1.5)" in terminal_text(summary)


def test_a_broken_run_among_others_is_left_out_and_named(data, references, log_messages):
    only(data, "ppo_b").joinpath("ppo_b_t0_spec.json").write_text("{")
    assert compare([str(data)], references).shared == ["A"]
    assert "ppo_b_2" in "".join(log_messages)
    with pytest.raises(SpecError, match="ppo_b_2"):
        compare([str(only(data, "ppo_b"))], references)


def test_no_run_is_one_clear_error(data):
    with pytest.raises(SpecError, match="no_such"):
        compare([str(data / "no_such")])


# --- what is left


def table(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_page_tables_and_figures(data, references, tmp_path):
    summary = Summary(compare([str(data)], references))
    (tmp_path / "out").mkdir()
    for name in ("sample_efficiency_Earlier-v0.html", "sample_efficiency_Earlier-v0.png", "mine.html"):
        (tmp_path / "out" / name).touch()
    files = write_all(summary, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"mine.html", *(file.name for file in files)}
    assert {file.name for file in files} == {
        "comparison.md",
        *(f"{name}.csv" for name in ("scores", "aggregates", "improvement", "profiles", "curves")),
        *(f"{name}.html" for name in ("aggregates", "improvement", "profiles", "sample_efficiency")),
        "sample_efficiency_A.html",
        "sample_efficiency_B.html",
    }
    scores = table(tmp_path / "out" / "scores.csv")
    assert len(scores) == 10
    assert scores[-1] | {"run": ""} == {
        "name": "PPO", "environment": "B", "run": "", "session": "1", "score": "-50.0", "normalised": "0.75",
    }  # fmt: skip
    [row] = table(tmp_path / "out" / "improvement.csv")
    assert float(row["probability"]) == pytest.approx(((0.5 + 3 + 3) / 9 + 0.5 / 4) / 2)
    assert {row["environment"] for row in table(tmp_path / "out" / "curves.csv")} == {"", "A", "B"}
    names = [trace["name"] for trace in read_figure(tmp_path / "out" / "profiles.html")["data"] if trace["showlegend"]]
    assert names == ["DQN", "PPO"]
    intervals = read_figure(tmp_path / "out" / "aggregates.html")
    assert json.dumps(intervals["layout"]["yaxis"]["ticktext"], ensure_ascii=False).count("IQM") == 2
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert f"| {summary.comparison.results[0][1].run} |" in page
    assert "| PPO | 0.333 [" in page
    assert "| DQN > PPO | 0.42 [" in page
    text = terminal_text(summary)
    for shown in ("Across 2 environments", "0.333 [", "DQN > PPO", "B (random actions -200, reference 0)"):
        assert shown in text
