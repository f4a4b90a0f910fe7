import shutil

import pytest

from slm_lab.experiment.analysis import analyze_session, analyze_trial, analyze_trial_sessions, metrics_line
from slm_lab.experiment.benchmark import read_result
from slm_lab.experiment.paths import RunPaths, find_run, new_run
from slm_lab.experiment.retro import retro
from slm_lab.lib.files import RowWriter, read_json, write_json
from slm_lab.lib.plot import read_figure
from slm_lab.spec import Spec, SpecError

CARTPOLE = 22.97


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/no/browser/here")  # PNGs have tests of their own


def spec_of(max_session, env="CartPole-v1"):
    return {
        "agent": {"name": "Random", "algorithm": {"name": "Random"}},
        "env": {"name": env, "max_frame": 300},
        "meta": {"max_session": max_session, "log_frequency": 100},
    }


def make_run(data_dir, name="dqn", returns=((20.0, 30.0), (50.0, None, 60.0)), trials=(0,)) -> RunPaths:
    """Leave a run on disk as training does, and analyse it."""
    run = new_run(data_dir, name)
    spec = spec_of(len(returns))
    write_json(run.spec, {name: spec})
    for paths in map(run.for_trial, trials):
        write_json(paths.trial_spec, {name: spec})
        for index, column in enumerate(returns):
            session = paths.for_session(index)
            write_json(session.session_spec, {name: spec})
            writer = RowWriter(session.session_df("train"))
            for row, value in enumerate(column):
                writer.append({"total_reward": value, "loss": 0.1, "frame": 100 * (row + 1), "opt_step": row})
            writer.close()
            analyze_session(session, CARTPOLE)
        analyze_trial(paths, spec, CARTPOLE)
    return run


def derived(run):
    """Return every file that analysis makes → its bytes."""
    files = [file for file in run.folder.rglob("*") if file.is_file() and not file.name.endswith("_spec.json")]
    return {file.relative_to(run.folder): file.read_bytes() for file in files if "df_train" not in file.name}


@pytest.mark.parametrize("name", ["dqn_shared", "a_t0_s0"])
def test_retro_makes_every_file_again_byte_for_byte(tmp_path, name):
    run = make_run(tmp_path, name, trials=(0, 11))
    before = derived(run)
    assert len(before) == 2 * (2 * (1 + 2 + 2 + 3) + 3 + 4)  # eval rows, metrics, graphs; of the trial
    for file in before:
        (run.folder / file).unlink()
    summary = retro(run.folder)
    after = derived(run)
    together = {file for file in after if "_multi_trial_graph_" in file.name}
    assert len(together) == 2
    assert {file: after[file] for file in after.keys() - together} == before
    assert (summary.sessions, list(summary.trials), summary.problems) == (4, [0, 11], [])


def test_retro_agrees_with_the_end_of_a_trial(tmp_path, log_messages):
    run = make_run(tmp_path)
    before = derived(run)
    for file in before:
        (run.folder / file).unlink()
    scalar = analyze_trial_sessions(run, Spec.from_dict("dqn", spec_of(2)))
    assert derived(run) == before
    assert scalar["strength"] == pytest.approx((25 + 55) / 2 - CARTPOLE)
    assert metrics_line(scalar) in "".join(log_messages)


def test_retro_rebuilds_from_rows_and_not_from_metrics(tmp_path):
    run = make_run(tmp_path)
    write_json(run.for_session(0).session_metrics("eval"), {"scalar": {"strength": 1e9}})
    session = run.for_session(0).session_df("train")
    session.write_text("total_reward,frame,opt_step\n100,100,1\n")
    assert retro(run.folder).trials[0]["sessions"]["0"]["strength"] == pytest.approx(100 - CARTPOLE)
    assert read_json(run.for_session(0).session_metrics("eval"))["scalar"]["strength"] == pytest.approx(77.03)


def test_half_written_files_are_named_and_the_rest_goes_on(tmp_path, log_messages):
    run = make_run(tmp_path)
    with run.for_session(1).session_df("train").open("a") as file:
        file.write("70,0.1,4")
    run.trial_spec.write_text('{"dqn": {"env"')
    run.for_session(0).session_df("train").unlink()
    summary = retro(run.folder)
    assert summary.sessions == 1
    assert summary.trials[0]["over_seeds"]["final_total_reward"]["values"].tolist() == [60.0]
    text = "".join(log_messages)
    for file in (run.for_session(1).session_df("train"), run.trial_spec, run.for_session(0).session_df("train")):
        assert file.name in text
    assert len(summary.problems) == 2  # the cut row is no loss of a file


def test_rows_that_are_spoilt_throughout_cost_one_session(tmp_path, log_messages):
    run = make_run(tmp_path)
    session = run.for_session(0)
    session.session_df("train").write_bytes(b"\x00" * 512)
    session.session_df("eval").unlink()
    before = session.session_metrics("train").read_bytes()
    summary = retro(run.folder)
    assert summary.trials[0]["over_seeds"]["final_total_reward"]["values"].tolist() == [60.0]
    assert summary.trials[0]["scalar"]["frame"] == 300  # of the first session that has one
    assert summary.trials[0]["scalar"]["consistency"] == 1.0
    assert session.session_metrics("train").read_bytes() == before
    assert summary.sessions == 1
    assert "dqn_t0_s0_session_df_train.csv: no whole row in it" in "".join(log_messages)


@pytest.mark.parametrize("cut", ["", "total_reward,loss,frame,opt_step\n20,0.1,100,0\n30,0.1,2"])
def test_rows_that_were_cut_short_are_those_of_their_copy(cut, tmp_path, log_messages):
    run = make_run(tmp_path)
    before = derived(run)
    rows = run.for_session(0).session_df("train")
    rows.write_text(cut)
    summary = retro(run.folder)
    assert derived(run) == before
    assert rows.read_text() == cut
    assert (summary.sessions, summary.problems) == (2, [])
    text = "".join(log_messages)
    assert f"{rows.name}: only {int(bool(cut))} of its 2 rows" in text
    assert text.count("left out 1 line(s)") == bool(cut)


def test_other_evaluation_rows_stay_as_the_run_wrote_them(tmp_path):
    run = make_run(tmp_path, returns=((20.0, 30.0),))
    rows = run.for_session(0).session_df("eval")
    rows.write_text("total_reward,frame\n21,100\n")
    retro(run.folder)
    assert rows.read_text() == "total_reward,frame\n21,100\n"


def test_a_copy_that_was_made_before_the_run_went_on_is_made_again(tmp_path):
    run = make_run(tmp_path, returns=((20.0, 30.0),))
    with run.for_session(0).session_df("train").open("a") as file:
        file.write("40,0.1,300,2\n")
    retro(run.folder)
    files = [run.for_session(0).session_df(mode).read_text() for mode in ("train", "eval")]
    assert files[0] == files[1]


@pytest.mark.parametrize("rigorous", [0, 4])
def test_what_no_row_is_left_of_stays_as_it_was_and_is_named(rigorous, tmp_path):
    run = make_run(tmp_path, returns=((20.0, 30.0),))
    spec = spec_of(1)
    spec["meta"]["rigorous_eval"] = rigorous
    write_json(run.trial_spec, {"dqn": spec})
    before = derived(run)
    for mode in ("train", "eval"):
        run.for_session(0).session_df(mode).write_text("")
    summary = retro(run.folder)
    after = derived(run)
    assert {file for file in before if after[file] != before[file]} == {
        run.for_session(0).session_df("eval").relative_to(run.folder)
    }
    named = [problem.partition(";")[0].rpartition("/")[2] for problem in summary.problems]
    files = ["train", "eval"] if rigorous else ["train"]
    assert named == [*(f"dqn_t0_s0_session_df_{mode}.csv: empty" for mode in files), named[-1]]
    assert "trial 0" in named[-1]
    assert (summary.sessions, summary.trials) == (0, {})


def test_a_trial_without_any_spec_is_left_out(tmp_path):
    run = make_run(tmp_path)
    run.trial_spec.unlink()
    run.spec.write_text("{}")
    summary = retro(run.folder)
    assert summary.trials == {}
    assert any("no spec" in problem for problem in summary.problems)


def test_a_spec_of_another_version_still_has_its_rows_analysed(tmp_path):
    run = make_run(tmp_path)
    before = derived(run)
    write_json(run.trial_spec, {"dqn": spec_of(2) | {"body": 1, "surprise": 2}})
    assert retro(run.folder).sessions == 2
    assert derived(run) == before


def test_a_folder_that_was_copied_and_renamed(tmp_path):
    run = make_run(tmp_path)
    copied = shutil.copytree(run.folder, tmp_path / "elsewhere" / "best")
    for folder in ("graph", "log", "model"):
        shutil.rmtree(copied / folder)
    assert retro(copied).sessions == 2
    assert RunPaths(copied, "dqn").trial_graph("mean_returns_vs_frames").exists()


def test_what_is_no_run_is_one_clear_error(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(SpecError, match="holiday"):
        retro(tmp_path / "holiday")
    run = make_run(tmp_path)
    shutil.rmtree(run.info_dir)
    with pytest.raises(SpecError, match="no rows"):
        retro(run.folder)


# --- runs of the older lab

COLUMNS = (
    "epi,t,wall_t,opt_step,frame,fps,total_reward,total_reward_ma,loss,lr,explore_var,entropy_coef,entropy,grad_norm"
)


def older_run(data_dir, trials=1, sessions=2, env="CartPole-v0"):
    """Leave a folder as an older lab did: specs without their name, in lists of one; CSV files, pickles, pictures."""
    name = "dqn_cartpole"
    folder = data_dir / f"{name}_2020_04_13_232501"
    for sub in ("info", "graph", "model", "log"):
        (folder / sub).mkdir(parents=True)
    spec = {
        "agent": [
            {"name": "DQN", "algorithm": {"name": "DQN"}, "memory": {"name": "Replay"}, "net": {"type": "MLPNet"}}
        ],
        "env": [{"name": env, "max_t": None, "max_frame": 300, "frame_op": None, "normalize_state": False}],
        "body": {"product": "outer", "num": 1},
        "meta": {"distributed": False, "max_session": sessions, "max_trial": 1, "rigorous_eval": 0, "trial": 0},
        "name": name,
    }
    write_json(folder / f"{name}_spec.json", spec)
    for trial in range(trials):
        write_json(folder / f"{name}_t{trial}_spec.json", spec)
        (folder / "info" / f"{name}_t{trial}_trial_metrics.pkl").write_bytes(b"\x80\x04never read")
        (folder / "graph" / f"{name}_t{trial}_trial_graph_mean_returns_vs_frames.png").write_bytes(b"\x89PNG")
        for session in range(sessions):
            prefix = f"{name}_t{trial}_s{session}"
            write_json(folder / f"{prefix}_spec.json", spec)
            rows = [f"{i},{i},1.0,{i},{100 * i},50.0,{20.0 * i + session},,nan,0.01,1.0,,nan,nan" for i in (1, 2, 3)]
            for mode in ("train", "eval"):
                (folder / "info" / f"{prefix}_session_df_{mode}.csv").write_text("\n".join([COLUMNS, *rows, ""]))
            (folder / "model" / f"{prefix}_net_model.pt").write_bytes(b"PK")
    return folder


def test_a_run_of_the_older_lab(tmp_path):
    folder = older_run(tmp_path)
    summary = retro(folder)
    assert (summary.sessions, list(summary.trials), summary.problems) == (2, [0], [])
    metrics = read_json(folder / "info" / "dqn_cartpole_t0_trial_metrics.json")
    assert metrics["random_baseline"] == CARTPOLE  # of the environment's name today
    assert metrics["over_seeds"]["final_total_reward"]["values"] == [60.0, 61.0]
    assert metrics["scalar"]["total_reward_ma"] == 40.5
    assert metrics["scalar"]["strength"] == pytest.approx(40.5 - CARTPOLE)
    assert (folder / "dqn_cartpole_t0_trial_graph_mean_returns_vs_frames.html").exists()
    assert (folder / "graph" / "dqn_cartpole_t0_s1_session_graph_train_explore_var_vs_frame.html").exists()
    assert not (folder / "graph" / "dqn_cartpole_t0_s1_session_graph_train_loss_vs_frame.html").exists()  # all NaN
    result = read_result(find_run(folder))
    assert (result.env, result.algorithm, result.scores) == ("CartPole-v0", "DQN", (40.0, 41.0))


def test_a_search_of_the_older_lab_with_files_missing(tmp_path, log_messages):
    folder = older_run(tmp_path, trials=4, sessions=1)
    info = folder / "info"
    (info / "dqn_cartpole_t1_s0_session_df_train.csv").unlink()
    (info / "dqn_cartpole_t2_s0_session_df_train.csv").write_text(COLUMNS + "\n1,2,3")
    (info / "dqn_cartpole_t2_s0_session_df_eval.csv").unlink()
    (folder / "dqn_cartpole_t3_spec.json").write_text('{"agent": [')
    summary = retro(folder)
    assert list(summary.trials) == [0, 3]
    assert len(summary.problems) == 4  # two of the rows that are none: the file, and that the trial has no other
    text = "".join(log_messages)
    for named in ("trial 1: no rows", "dqn_cartpole_t2_s0_session_df_train.csv", "dqn_cartpole_t3_spec.json"):
        assert named in text
    together = read_figure(folder / "graph" / "dqn_cartpole_multi_trial_graph_mean_returns_vs_frames.html")
    assert [line["name"] for line in together["data"]] == ["trial 0", "trial 3"]


def test_an_older_run_that_was_renamed_and_an_environment_that_is_gone(tmp_path, log_messages):
    folder = older_run(tmp_path, env="RoboschoolHumanoidFlagrunHarder-v1").rename(tmp_path / "best")
    assert retro(folder).paths.spec_name == "dqn_cartpole"
    assert read_json(folder / "info" / "dqn_cartpole_t0_trial_metrics.json")["random_baseline"] == 0.0
    assert "no random baseline for RoboschoolHumanoidFlagrunHarder-v1" in "".join(log_messages)
