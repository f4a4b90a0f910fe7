"""Searches in this process: what they leave, what they survive, and what they refuse."""

import csv
import json
import math
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import optuna
import pytest
from lab_runs import make_spec

from slm_lab.experiment import graph, pbt
from slm_lab.experiment.benchmark import find_result, find_runs, read_result
from slm_lab.experiment.compare import compare
from slm_lab.experiment.paths import RunPaths
from slm_lab.experiment.retro import retro
from slm_lab.experiment.search import Search
from slm_lab.experiment.search_results import best_session, best_spec, best_trial, read_table, write_table
from slm_lab.experiment.signals import StopRequest
from slm_lab.experiment.trial import Interrupted, TrialError
from slm_lab.lib import plot
from slm_lab.lib.plot import read_figure
from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.search_space import SearchSpace

GAMMA, LR, LAYERS = "agent.algorithm.gamma", "agent.net.optim_spec.lr", "agent.net.hid_layers"
SPACE = {f"{GAMMA}__uniform": [0.9, 0.999], f"{LR}__loguniform": [1e-4, 1e-2], f"{LAYERS}__choice": [[8], [8, 8]]}


@pytest.fixture(autouse=True, scope="module")
def _light_pages():
    """Pages without plotly.js, and no PNGs: they have tests of their own, and take longer than these searches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSER_PATH", "/no/browser")
        patch.setattr(plot, "_plotly_js", lambda: "")
        yield


def searched(search=None, algorithm="PPO", env="CartPole-v1", meta=None, **env_keys):
    spec = make_spec(algorithm, env, meta={"max_trial": 4} | (meta or {}), **({"max_frame": 600} | env_keys))
    return Spec.from_dict("tiny", spec.to_dict() | {"search": search or SPACE})


def serial(spec, folder, **keys):
    search = Search(spec, folder, serial=True, **keys)
    search.run()
    return search


def study_of(paths):
    backend = optuna.storages.journal.JournalFileBackend(str(paths.study))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def states(paths):
    return [trial.state.name for trial in study_of(paths).trials]


def table_of(paths):
    with paths.experiment_df_top.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A search that has come to its end: four trials of two sessions."""
    return serial(searched(meta={"max_session": 2}), tmp_path_factory.mktemp("data"), keep=1).paths


def test_every_trial_leaves_what_a_trial_leaves(done):
    rows = read_table(done)
    assert [row.trial for row in rows] == [0, 1, 2, 3]
    assert states(done) == ["COMPLETE"] * 4
    for row in rows:
        trial = done.for_trial(row.trial)
        spec = load_spec(trial.trial_spec, "tiny")
        assert spec.search == {}
        assert spec.agent.algorithm.gamma == row.params[GAMMA]
        assert spec.agent.net.optim_spec["lr"] == row.params[LR]
        assert spec.agent.net.hid_layers == row.params[LAYERS]
        assert len(json.loads(trial.trial_metrics.read_text())["sessions"]) == 2
        derived = json.loads(trial.derived.read_text())
        assert (derived["spec_hash"], derived["mode"], derived["threads"]) == (spec.hash, "search", 1)
        assert json.loads(trial.trial_metrics_scalar.read_text())["total_reward_ma"] == row.score
        for index in (0, 1):
            assert trial.for_session(index).session_df("train").exists()
            assert load_spec(trial.for_session(index).session_spec, "tiny").hash == spec.hash
    # what the study was told is the mean over the seeds
    assert [trial.value for trial in study_of(done).trials] == [row.score for row in rows]


def test_a_search_counts_by_its_best_trial(done):
    (found,) = find_runs([done.folder.parent])
    assert found.trial == best_trial(done).trial
    result = read_result(found)
    assert result.mean == best_trial(done).score
    assert result.commit != "unknown" or "the commit of the lab was not known to it" in result.notes
    assert any(note.startswith("a trial of a search, chosen by this very score") for note in result.notes)
    (_, compared) = compare([str(done.folder)]).results[0]
    assert compared == result
    other = next(row.trial for row in read_table(done) if row.trial != found.trial)
    paths = find_result(done.for_trial(other).trial_spec)
    assert paths.trial == other
    assert f"a trial of a search, whose best is trial {found.trial}" in read_result(paths).notes


def test_the_table_has_the_strongest_first(done):
    table = table_of(done)
    assert list(table[0])[:4] == ["trial", GAMMA, LAYERS, LR]
    strengths = [float(line["strength"]) for line in table]
    assert strengths == sorted(strengths, reverse=True)
    assert {line["state"] for line in table} == {"COMPLETE"}
    assert done.experiment_df.read_text() == done.experiment_df_top.read_text()


def test_graphs_of_the_search_and_of_the_best_trial(done):
    pages = {page.name.removeprefix("tiny_") for page in done.graph_dir.glob("*.html")}
    assert {f"experiment_graph{kind}.html" for kind in ("", "_parallel_coordinates", "_importance")} <= pages
    figure = read_figure(done.experiment_graph())
    assert len(figure["data"]) == 8 * 3  # metrics × parameters, a dot a trial
    assert all(len(trace["x"]) == 4 for trace in figure["data"])
    lines = read_figure(done.multi_trial_graph("mean_returns_ma_vs_frames"))["data"]
    assert {line["name"] for line in lines} == {f"trial {index}" for index in range(4)}
    best = best_trial(done).trial
    drawn = {page.name for page in done.folder.glob("*_trial_graph_mean_returns_vs_frames.html")}
    assert drawn == {f"tiny_t{best}_trial_graph_mean_returns_vs_frames.html"}


def test_pngs_are_drawn_of_the_search_as_a_whole(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(graph, "draw_pngs", drawn.extend)
    paths = serial(searched(meta={"max_trial": 2}, max_frame=200), tmp_path).paths
    kinds = {page.name.removeprefix("tiny_").partition("_graph")[0] for page in drawn}
    assert kinds == {"experiment", "multi_trial"}
    assert all(page.parent == paths.graph_dir for page in drawn)


def test_a_search_imports_torch_in_its_workers_only():
    code = """
import sys
from slm_lab.experiment.search import Search
from slm_lab.spec import load_spec
Search(load_spec("demo_search.json")).space.check()
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_only_the_models_of_the_best_are_kept(done):
    best = best_trial(done).trial
    assert max(row.score for row in read_table(done)) == best_trial(done).score
    assert {folder.name[: len("tiny_t0")] for folder in done.model_dir.iterdir()} == {f"tiny_t{best}"}


def test_retro_makes_the_table_and_the_graphs_again(done, tmp_path):
    copy = RunPaths(shutil.copytree(done.folder, tmp_path / done.folder.name), "tiny")
    for file in [*copy.folder.glob("*.csv"), *copy.graph_dir.iterdir(), *copy.info_dir.glob("*metrics*")]:
        file.unlink()
    rows = [replace(row, metrics={}) for row in read_table(copy)]
    write_table(copy, rows)
    summary = retro(copy.folder)
    assert summary.problems == []
    assert read_table(copy) == read_table(done)
    assert copy.experiment_df_top.read_text() == done.experiment_df_top.read_text()
    assert copy.experiment_graph().exists()
    assert copy.for_trial(3).trial_graph("mean_returns_vs_frames").exists()


def test_retro_without_the_study_says_so_and_makes_the_table_from_what_there_is(done, tmp_path, log_messages):
    copy = RunPaths(shutil.copytree(done.folder, tmp_path / done.folder.name), "tiny")
    copy.study.unlink()
    lost, kept = copy.for_trial(1), read_table(copy)
    for file in copy.info_dir.glob("tiny_t1_s*_session_df_*.csv"):
        file.write_text("")
    metrics = lost.trial_metrics.read_bytes()
    write_table(copy, [row if row.trial == 1 else replace(row, metrics={}) for row in kept])
    cut = copy.for_trial(0).for_session(0).session_df("train")
    with cut.open("a") as file:
        file.write("1,2")
    summary = retro(copy.folder)
    assert "".join(log_messages).count(f"{cut}: left out 1 line(s)") == 1
    assert read_table(copy) == read_table(done)
    assert copy.experiment_df.read_text() == done.experiment_df.read_text()
    assert lost.trial_metrics.read_bytes() == metrics
    assert f"{copy.study}: missing, and not made of rows" in summary.problems[-1]
    assert summary.problems[-1] in "".join(log_messages)
    copy.trial_data_dict.unlink()
    assert "its graphs are left as they were" in retro(copy.folder).problems[-1]
    assert copy.experiment_df.read_text() == done.experiment_df.read_text()


def test_the_best_is_trained_with_other_and_more_seeds(done):
    spec = best_spec(done)
    assert (spec.name, spec.meta.max_session, spec.search) == ("tiny_best", 4, {})
    assert spec.agent.algorithm.gamma == best_trial(done).params[GAMMA]
    assert best_spec(done, ["meta.max_session=2"]).meta.max_session == 2
    assert spec.meta.seed not in (None, 7)  # trial 0 of the search has the seeds of a run of its own
    assert best_spec(done).meta.seed == spec.meta.seed
    session = best_session(done)
    assert session.trial == best_trial(done).trial


def test_the_same_seed_is_the_same_search(done, tmp_path):
    again = serial(searched(meta={"max_session": 2, "max_trial": 2}), tmp_path).paths
    assert read_table(again) == read_table(done)[:2]
    other = serial(searched(meta={"max_session": 1, "max_trial": 1, "seed": 8}), tmp_path).paths
    assert read_table(other)[0].params != read_table(done)[0].params


def test_more_trials_extend_a_search_that_was_done(tmp_path):
    spec = searched(meta={"max_trial": 1})
    paths = serial(spec, tmp_path).paths
    first = read_table(paths)
    serial(spec.with_meta(max_trial=3), tmp_path, resume=paths.folder)
    rows = read_table(paths)
    assert rows[:1] == first
    assert len({row.params[GAMMA] for row in rows}) == 3
    serial(spec.with_meta(max_trial=3), tmp_path, resume=paths.folder)  # nothing is left to do
    assert read_table(paths) == rows


@pytest.mark.parametrize("count", [2, 4])
def test_a_search_that_is_done_says_so_and_begins_nothing(count, done, tmp_path, capsys, monkeypatch):
    copy = RunPaths(shutil.copytree(done.folder, tmp_path / done.folder.name), "tiny")
    monkeypatch.setattr(Search, "_pool", lambda *_: pytest.fail("it begins"))
    spec = searched(meta={"max_session": 2, "max_trial": count})
    rows = Search(spec, tmp_path, resume=copy.folder).run()
    assert sorted(rows, key=lambda row: row.trial) == read_table(done)
    assert f"nothing is left to do: 4 trials have ended, of {count} that were asked for" in capsys.readouterr().err
    assert copy.spec.read_text() == done.spec.read_text()


@pytest.mark.parametrize(
    ("net", "serially", "said"),
    [
        ({"gpu": False}, False, "meta.search_resources: gpu 1 counts for nothing, as agent.net.gpu is false"),
        ({"gpu": "auto"}, False, ""),
        ({"gpu": "auto"}, True, "meta.search_resources: counts for nothing with --serial"),
    ],
)
def test_what_is_asked_of_gpus_in_vain_is_named(net, serially, said, monkeypatch, log_messages):
    from slm_lab.experiment import search

    asked = []
    monkeypatch.setattr(search, "RayPool", lambda *keys: asked.append(keys[:2]))
    spec = make_spec(net=net, meta={"max_trial": 1, "search_resources": {"gpu": 1}})
    spec = Spec.from_dict("tiny", spec.to_dict() | {"search": SPACE})
    Search(spec, serial=serially)._pool(StopRequest(), [])
    assert asked == ([] if serially else [(1, 0.0 if net["gpu"] is False else 1)])
    text = "".join(log_messages)
    assert said in text
    assert ("counts for nothing" in text) == bool(said)


def test_a_search_that_goes_on_keeps_its_spec(done, tmp_path):
    spec = load_spec(done.spec, "tiny", ["env.max_frame=700"])
    with pytest.raises(SpecError, match=r"^env.max_frame: a search that goes on keeps its spec"):
        Search(spec, tmp_path, resume=done.folder, serial=True).run()


def test_stopped_it_goes_on_as_if_never_stopped(done, tmp_path, monkeypatch):
    from slm_lab.experiment import pool, search

    stops = []
    real = pool.run_stretch

    def stop_in_trial_2(stretch, stop):
        if stretch.paths.trial == 2 and not stops:
            stops.append(stop)
            stop.request()  # as Ctrl-C does
        return real(stretch, stop)

    monkeypatch.setattr(pool, "run_stretch", stop_in_trial_2)
    spec = searched(meta={"max_session": 2})
    with pytest.raises(Interrupted, match=r"go on with: slm-lab .* search@.* --serial"):
        serial(spec, tmp_path)
    paths = search.latest_search(tmp_path, "tiny")
    assert states(paths) == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert search.interrupted_search(tmp_path, spec) == paths
    assert search.interrupted_search(tmp_path, spec.with_meta(seed=9)) is None
    serial(load_spec(paths.spec, "tiny"), tmp_path, resume=paths.folder)
    assert states(paths) == ["COMPLETE"] * 4
    assert search.interrupted_search(tmp_path, spec) is None
    assert read_table(paths)[:3] == read_table(done)[:3]  # the fourth is drawn anew


def test_ctrl_c_while_graphs_are_drawn_says_which_search_and_how_to_go_on(tmp_path, monkeypatch):
    from slm_lab.experiment import search

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "draw_results", interrupted)
    with pytest.raises(Interrupted, match=r"stopped and saved; go on with: slm-lab .* search@.* --serial") as stopped:
        serial(searched(meta={"max_trial": 1}, max_frame=200), tmp_path)
    assert stopped.value.paths == search.latest_search(tmp_path, "tiny")


def test_bad_trials_are_stopped_early_and_keep_what_they_have(tmp_path):
    meta = {"max_session": 2, "max_trial": 4, "search_scheduler": {"grace_period": 200, "reduction_factor": 2}}
    paths = serial(searched(meta=meta), tmp_path).paths
    rows = read_table(paths)
    pruned = [row for row in rows if row.state == "PRUNED"]
    assert pruned
    assert any(row.state == "COMPLETE" for row in rows)
    for row in pruned:
        trial = study_of(paths).trials[row.trial]
        assert row.metrics["frame"] in (200, 400)
        # judged by the mean over both seeds
        assert trial.intermediate_values[int(row.metrics["frame"])] == pytest.approx(row.score)
        assert row.reason.startswith(f"at frame {int(row.metrics['frame'])}, with a total_reward_ma of")
    assert {line["state"] for line in table_of(paths)} == {"COMPLETE", "PRUNED"}
    # a trial that was judged and went on is what it is without judgements
    assert rows[0].state == "COMPLETE"
    alone = serial(searched(meta={"max_session": 2, "max_trial": 1}), tmp_path / "whole").paths
    assert read_table(alone)[0].metrics == rows[0].metrics


def test_median_stopping(tmp_path):
    meta = {"max_trial": 3, "search_scheduler": {"name": "median", "grace_period": 200}}
    paths = serial(searched(meta=meta), tmp_path).paths
    assert sorted(study_of(paths).trials[0].intermediate_values) == [200, 400]
    assert read_table(paths)[0].state == "COMPLETE"


def test_a_trial_that_diverges_has_failed_and_is_never_the_best(tmp_path):
    """Returns are negative here, so that a diverged trial that counted as 0 would win."""
    space = {f"{LR}__grid_search": [1e-3, 1e30, 1e-4]}
    spec = searched(space, env="Acrobot-v1", meta={"max_session": 2}, max_t=50)
    paths = serial(spec, tmp_path).paths
    rows = read_table(paths)
    assert [row.state for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert states(paths) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "session 0: " in rows[1].reason
    assert rows[1].metrics == {}
    assert study_of(paths).trials[1].user_attrs["reason"] == rows[1].reason
    assert best_trial(paths).trial != 1
    (line,) = [line for line in table_of(paths) if line["state"] == "FAIL"]
    assert line["reason"] == rows[1].reason


def test_a_trial_that_fails_late_has_no_number(tmp_path):
    """Not even the strength that the table is sorted by: its rows say what a part of its seeds had come to."""
    keys = {"folder": str(tmp_path), "kind": "raise", "at": 140}  # of 150 steps, the first trial alone
    meta = {"max_trial": 2, "max_session": 2}
    paths = serial(
        searched({f"{GAMMA}__grid_search": [0.9, 0.99]}, env="odd_envs:Trouble", meta=meta, **keys), tmp_path
    ).paths
    failed, whole = read_table(paths)
    assert (failed.state, failed.metrics) == ("FAIL", {})
    assert failed.reason == "session 0: ZeroDivisionError: the world is flat"
    assert paths.for_session(0).session_df("train").exists()
    assert whole.state == "COMPLETE"
    assert [(line["trial"], line["strength"] != "") for line in table_of(paths)] == [("1", True), ("0", False)]
    assert all(len(trace["x"]) == 1 for trace in read_figure(paths.experiment_graph())["data"])


def test_where_all_fail_it_has_failed(tmp_path):
    spec = searched({f"{LR}__grid_search": [1e30]})
    with pytest.raises(TrialError, match="no trial has come to a score; the first: session 0: "):
        serial(spec, tmp_path)


def test_without_a_finished_episode_there_is_no_score(tmp_path):
    spec = searched({f"{GAMMA}__grid_search": [0.9]}, env="MountainCar-v0", max_frame=400)
    with pytest.raises(TrialError, match="not every session has finished an episode"):
        serial(spec, tmp_path)


def test_a_grid_has_every_combination_once(tmp_path):
    space = {f"{GAMMA}__grid_search": [0.9, 0.99], f"{LAYERS}__grid_search": [[4], [8]]}
    spec = searched(space, meta={"max_trial": None}, max_frame=200)
    paths = serial(spec.with_meta(max_trial=3), tmp_path).paths
    serial(spec.with_meta(max_trial=100), tmp_path, resume=paths.folder)
    tried = [(row.params[GAMMA], row.params[LAYERS]) for row in read_table(paths)]
    assert tried == [(0.9, [4]), (0.9, [8]), (0.99, [4]), (0.99, [8])]


@pytest.mark.parametrize("algorithm", ["random", "nsga"])
def test_other_algorithms(tmp_path, algorithm):
    space = {f"{GAMMA}__uniform": [0.9, 0.99], "env.max_frame__choice": [200, 400]}
    paths = serial(searched(space, meta={"search_algorithm": algorithm, "max_trial": 3}), tmp_path).paths
    trials = study_of(paths).trials
    assert [len(trial.values) for trial in trials] == [1 + (algorithm == "nsga")] * 3
    if algorithm == "nsga":
        assert [trial.values[1] for trial in trials] == [row.params["env.max_frame"] for row in read_table(paths)]


def rates(paths, trial):
    file = paths.for_trial(trial).for_session(0).session_df("train")
    with file.open() as lines:
        return {int(row["frame"]): float(row["lr"]) for row in csv.DictReader(lines)}


POPULATION = {"search_algorithm": "pbt", "max_trial": 4, "search_scheduler": {"grace_period": 200}}
RATES = {f"{LR}__loguniform": [1e-5, 1e-2], f"{GAMMA}__uniform": [0.9, 0.99]}


def test_in_a_population_the_worst_take_over_the_best(tmp_path):
    paths = serial(searched(RATES, meta=POPULATION), tmp_path, keep=-1).paths
    rows = read_table(paths)
    assert states(paths) == ["COMPLETE"] * 4
    assert len(list(paths.folder.glob("*_trial_graph_mean_returns_vs_frames.html"))) == 4  # all are kept
    trials = study_of(paths).trials
    children = [row for row in rows if row.reason]
    assert children
    for row in children:
        parent, frame = map(int, re.fullmatch(r"took over trial (\d) at frame (\d+)", row.reason).groups())
        scores = [trial.intermediate_values[frame] for trial in trials]
        assert scores[row.trial] == min(scores)
        assert scores[parent] == max(scores)
        # it goes on with the rate that its spec says now, not with the one of the checkpoint that it took over
        assert load_spec(paths.for_trial(row.trial).trial_spec).agent.net.optim_spec["lr"] == row.params[LR]
        seen = rates(paths, row.trial)
        assert seen[600] == pytest.approx(row.params[LR])
        assert seen[frame] == pytest.approx(trials[row.trial].params[LR]) or frame > 200
        if not rows[parent].reason:
            assert row.params[LR] / rows[parent].params[LR] == pytest.approx(0.8) or row.params[LR] == pytest.approx(
                min(1.25 * rows[parent].params[LR], 1e-2)
            )


def test_a_population_that_was_stopped_comes_to_the_same_end(tmp_path, monkeypatch):
    from slm_lab.experiment import pool, search

    whole = serial(searched(RATES, meta=POPULATION), tmp_path / "whole").paths
    stops, real = [], pool.run_stretch

    def stop_in_the_second_stretch_of_trial_2(stretch, stop):
        if stretch.paths.trial == 2 and stretch.until == 400 and not stops:
            stops.append(stop)
            stop.request()
        return real(stretch, stop)

    monkeypatch.setattr(pool, "run_stretch", stop_in_the_second_stretch_of_trial_2)
    with pytest.raises(Interrupted):
        serial(searched(RATES, meta=POPULATION), tmp_path)
    paths = search.latest_search(tmp_path, "tiny")
    spec = load_spec(paths.spec, "tiny")
    with pytest.raises(SpecError, match=r"^meta.max_trial: a population keeps its 4 members"):
        serial(spec.with_meta(max_trial=8), tmp_path, resume=paths.folder)  # they would be judged at other frames
    serial(spec, tmp_path, resume=paths.folder)
    assert read_table(paths) == read_table(whole)
    Search(spec.with_meta(max_trial=8), resume=paths.folder)._refuse_another_search()  # another population is welcome


def test_who_takes_over_whom():
    scores = {0: 1.0, 1: math.nan, 2: 5.0, 3: 4.0, 4: -1.0, 5: 0.0, 6: 3.0, 7: 2.0}
    taken = pbt.parents(scores, random.Random(0))
    assert taken.keys() == {1, 4}
    assert set(taken.values()) <= {2, 3}
    assert pbt.parents({0: 1.0, 1: 2.0, 2: 3.0}, random.Random(0)) == {}
    # before an episode has ended, nothing is known, and nobody takes over
    assert pbt.parents(dict.fromkeys(range(4), math.nan), random.Random(0)) == {}
    assert pbt.parents(dict.fromkeys(range(7), math.nan) | {7: 0.0}, random.Random(0)) == {0: 7, 1: 7}


def test_what_a_member_tries_next():
    space = SearchSpace(searched(SPACE | {"env.num_envs__randint": [1, 9]})).parameters
    values = {GAMMA: 0.95, LR: 1e-3, LAYERS: [8], "env.num_envs": 4}
    tried = [pbt.explore(space, values, random.Random(seed)) for seed in range(20)]
    assert {trial[GAMMA] for trial in tried} == {0.9, 0.999}  # kept within the range
    assert {round(trial[LR], 9) for trial in tried} == {8e-4, 1.25e-3}
    assert all((trial[LAYERS], trial["env.num_envs"]) == ([8], 4) for trial in tried)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"search_algorithm": "pbt", "max_trial": 3}, "3 is no population for pbt"),
        ({"max_trial": None}, "meta.max_trial: missing"),
        ({"search_algorithm": "grid"}, "a grid needs finitely many values"),
        ({"search_algorithm": "nsga"}, "nsga weighs the score against env.max_frame, which is not searched"),
        ({"max_session": 2, "distributed": "synced"}, "cannot be searched; set it to false"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(changes, text, tmp_path):
    with pytest.raises(SpecError) as error:
        serial(searched(meta=changes), tmp_path / "data")
    assert text in str(error.value)
    assert not (tmp_path / "data").exists()


def test_cma_es_says_what_it_needs(tmp_path):
    spec = searched({f"{LAYERS}__choice": [[4], [8]]}, meta={"search_algorithm": "cma-es"})
    with pytest.raises(SpecError, match="cma-es needs a number to search"):
        serial(spec, tmp_path)


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    from slm_lab.experiment import search

    monkeypatch.setattr(search, "BYTES_PER_ROW", 10**15)
    with pytest.raises(SpecError, match=r"disk: about [\d,]+ MB, of [\d,]+ MB free; free some"):
        serial(searched(), tmp_path)
    assert not list(tmp_path.glob("tiny_*"))


def test_a_half_written_line_of_the_study_is_cut_off(tmp_path):
    spec = searched(meta={"max_trial": 1}, max_frame=200)
    paths = serial(spec, tmp_path).paths
    with paths.study.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    serial(spec.with_meta(max_trial=2), tmp_path, resume=paths.folder)
    assert states(paths) == ["COMPLETE"] * 2


def test_it_says_what_it_will_take(tmp_path):
    meta = {"max_session": 2, "max_trial": 1, "search_scheduler": {"grace_period": 100, "reduction_factor": 2}}
    from slm_lab.experiment import search

    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.logger, "info", lambda text, *rest: said.append(text.format(*rest)))
        serial(searched(meta=meta), tmp_path)
    text = "\n".join(said)
    assert "1 trial × 2 sessions × 600 frames = 1,200 frames, by tpe" in text
    assert "asha stops trials early, at frames 100, 200, 400" in text
    assert "1 session at once, in this process" in text
    assert "MB free" in text


def test_the_command_that_goes_on_keeps_as_many_models(done):
    searching = Search(load_spec(done.spec), resume=done.folder, keep=-1, address="10.0.0.1:6379")
    searching.paths = done
    assert searching.resume_command().endswith(f" search@{done.folder} --keep=-1 --ray-address=10.0.0.1:6379")


def test_paths_of_a_trial_spec_run_by_themselves(done):
    row = best_trial(done)
    paths = RunPaths(done.folder, "tiny", row.trial)
    assert load_spec(paths.trial_spec).agent.algorithm.gamma == row.params[GAMMA]
