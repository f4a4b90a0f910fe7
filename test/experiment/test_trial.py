"""The sessions of a trial, in processes."""

import math
import os
import subprocess
import sys

import pytest
from lab_runs import begin, make_spec, newest, only_run, rows, run_session, same

from slm_lab.experiment import analysis
from slm_lab.experiment import trial as module
from slm_lab.experiment.baseline import baseline_key
from slm_lab.experiment.lock import only_one
from slm_lab.experiment.paths import find_run
from slm_lab.experiment.trial import Interrupted, Trial, TrialError
from slm_lab.lib.files import read_json, write_json
from slm_lab.spec import SpecError, load_spec


def know_baseline(data_dir, spec):
    """Spare a trial the games of a random policy."""
    write_json(data_dir / "random_baseline.json", {baseline_key(spec.env.name, spec.env.kwargs): -1.0})


def test_no_more_sessions_at_once_than_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    (tmp_path / "notes").mkdir()
    keys = {"num_envs": 2, "max_frame": 100, "folder": str(tmp_path / "notes")}
    spec = make_spec(env="odd_envs:Timed", meta={"max_session": 3}, **keys)
    know_baseline(tmp_path, spec)
    trial = Trial(spec, data_dir=tmp_path)
    metrics = trial.run()
    assert len(list((tmp_path / "notes").iterdir())) == 3
    spans = [tuple(map(float, note.read_text().split())) for note in (tmp_path / "notes").iterdir()]
    assert max(sum(made <= at < closed for made, closed in spans) for at, _ in spans) <= 2
    assert metrics["frame"] == 100
    derived = read_json(trial.paths.info_dir / "tiny_t0_derived.json")
    assert (derived["sessions_at_once"], derived["threads"]) == (2, 1)

    # in a process of its own, a session does what it does here
    here = begin(tmp_path / "here", spec)
    run_session(spec, here, 1)
    assert rows(trial.paths, 1) == rows(here, 1)
    assert same(newest(trial.paths, 1)[1]["net"], newest(here, 1)[1]["net"])


@pytest.mark.parametrize(("cores", "sessions", "threads"), [(8, 2, 4), (8, 1, 8), (2, 4, 1), (8, 3, 2)])
def test_threads_are_shared_out(monkeypatch, cores, sessions, threads):
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    spec = make_spec(meta={"max_session": sessions})
    assert Trial(spec)._threads() == threads


@pytest.mark.parametrize(
    ("kind", "message"),
    [("raise", "ZeroDivisionError: the world is flat"), ("kill", "its process ended with signal 9")],
)
def test_a_session_that_dies_fails_the_trial_and_the_others_save(tmp_path, kind, message):
    (tmp_path / "notes").mkdir()
    keys = {"folder": str(tmp_path / "notes"), "kind": kind, "at": 60, "seconds": 1e-3}
    spec = make_spec("DoubleDQN", "odd_envs:Trouble", num_envs=1, max_frame=100_000, meta={"max_session": 2}, **keys)
    with pytest.raises(TrialError) as caught:
        Trial(spec, data_dir=tmp_path / "data").run()
    assert message in str(caught.value)
    dead = int(str(caught.value).removeprefix("session ")[0])
    assert kind == "kill" or 'odd_envs.py", line' in str(caught.value)  # its traceback
    frame, _ = newest(only_run(tmp_path / "data", "tiny"), 1 - dead)
    assert 0 <= frame < 100_000


@pytest.mark.parametrize(("what", "named"), [("reward", "a reward"), ("obs", "an observation")])
@pytest.mark.parametrize("sessions", [1, 2])
def test_an_environment_that_gives_no_numbers_is_named(tmp_path, what, named, sessions):
    spec = make_spec("PPO", "odd_envs:NoNumber", what=what, meta={"max_session": sessions})
    with pytest.raises(TrialError, match=f"odd_envs:NoNumber returned {named} that is no finite number") as error:
        Trial(spec, data_dir=tmp_path).run()
    assert "Traceback" not in str(error.value)


def test_a_session_that_raises_here_fails_the_trial_too(tmp_path):
    keys = {"folder": str(tmp_path), "kind": "raise", "at": 5}
    with pytest.raises(TrialError, match=r"session 0 failed:(.|\n)*ZeroDivisionError: the world is flat"):
        Trial(make_spec(env="odd_envs:Trouble", **keys), data_dir=tmp_path / "data").run()


def test_what_does_not_fit_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(SpecError, match="CartPoel"):
        Trial(make_spec(env="CartPoel-v1"), data_dir=tmp_path).run()
    assert not list(tmp_path.glob("tiny_*"))


def test_one_row_and_no_finished_episode_are_a_valid_run(tmp_path):
    spec = make_spec(env="odd_envs:Walk", ends=False, max_frame=100, meta={"log_frequency": 10_000})
    know_baseline(tmp_path, spec)
    trial = Trial(spec, data_dir=tmp_path)
    metrics = trial.run()
    assert len(rows(trial.paths)) == 1
    assert metrics["frame"] == 100
    assert math.isnan(metrics["strength"])
    assert trial.paths.trial_metrics_scalar_top.exists()


def test_a_run_that_goes_on_counts_from_the_baseline_beside_it(tmp_path):
    """Wherever new runs would be written: else its strength would change with the folder of the shell."""
    spec = make_spec(env="odd_envs:Walk", max_frame=100)
    know_baseline(tmp_path, spec)
    trial = Trial(spec, data_dir=tmp_path)
    metrics = trial.run()
    (tmp_path / "else").mkdir()
    write_json(tmp_path / "else" / "random_baseline.json", {baseline_key(spec.env.name, spec.env.kwargs): 50.0})
    again = Trial(trial.spec, data_dir=tmp_path / "else", resume=trial.paths.folder)
    assert again.run()["strength"] == metrics["strength"]


def test_a_seed_is_drawn_once_and_written_down(tmp_path):
    spec = make_spec(max_frame=100, meta={"seed": None})
    trial = Trial(spec, data_dir=tmp_path)
    trial.run()
    saved = load_spec(trial.paths.spec)
    assert saved.meta.seed == trial.spec.meta.seed is not None
    again = begin(tmp_path / "again", saved)
    run_session(saved, again)
    assert same(newest(again)[1]["net"], newest(trial.paths)[1]["net"])


def test_seeds_are_added_to_a_finished_run(tmp_path):
    trial = Trial(make_spec(max_frame=400), data_dir=tmp_path)
    know_baseline(tmp_path, trial.spec)
    trial.run()
    first = rows(trial.paths)
    more = Trial(make_spec(max_frame=400, meta={"max_session": 2}), data_dir=tmp_path, resume=trial.paths.folder)
    more.run()
    assert read_json(trial.paths.trial_metrics)["sessions"].keys() == {"0", "1"}
    assert rows(trial.paths) == first
    never = begin(tmp_path / "never", more.spec)
    run_session(more.spec, never, 1)
    assert rows(trial.paths, 1) == rows(never, 1)


def test_a_run_at_work_is_not_touched_by_a_second_process(tmp_path):
    spec = make_spec()
    paths = begin(tmp_path, spec)
    before = paths.spec.read_bytes()
    with only_one(paths.log_dir / ".tiny_t0.lock", paths), pytest.raises(SpecError, match="another process is at work"):
        Trial(make_spec(max_frame=5000), data_dir=tmp_path, resume=paths.folder).run()
    assert paths.spec.read_bytes() == before


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path):
    spec = make_spec(max_frame=100, meta={"max_session": 2})
    write_json(tmp_path / "spec.json", {spec.name: spec.to_dict()})
    script = 'from slm_lab import Trial, load_spec\n{}Trial(load_spec("spec.json")).run()\n'
    (tmp_path / "bare.py").write_text(script.format(""))
    (tmp_path / "guarded.py").write_text(script.format('if __name__ == "__main__":\n    '))
    bare, guarded = (
        subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        for name in ("bare.py", "guarded.py")
    )
    assert bare.returncode == 1
    assert 'put it under `if __name__ == "__main__":`' in bare.stderr.splitlines()[-1]
    assert guarded.returncode == 0, guarded.stderr
    assert len(list((tmp_path / "data").glob("tiny_*"))) == 1
    assert os.path.islink(tmp_path / "data" / "@latest")  # noqa: PTH114


def test_a_run_that_never_began_leaves_no_folder_and_latest_where_it_was(tmp_path):
    good = begin(tmp_path, make_spec())
    with pytest.raises(SpecError, match=r"env\.name"):
        Trial(make_spec(env="CartPoel-v1", name="bad"), data_dir=tmp_path).run()
    assert find_run(tmp_path / "@latest").folder.resolve() == good.folder.resolve()
    assert not list(tmp_path.glob("bad_*"))


def test_ctrl_c_while_graphs_are_drawn_says_which_run_and_how_to_go_on(tmp_path, monkeypatch):
    """A batch would begin it anew, however long it has trained."""

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    trial = Trial(make_spec(max_frame=100), data_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "analyze_trial_sessions", interrupted)
        with pytest.raises(Interrupted) as stopped:
            trial.run()
    assert str(stopped.value) == f"stopped and saved; go on with: {trial.resume_command()}"
    assert stopped.value.paths == trial.paths
    assert Trial(trial.spec, data_dir=tmp_path, resume=trial.paths.folder).run()["frame"] == 100


def test_run_and_trial_have_logs_with_the_metrics(tmp_path):
    trial = Trial(make_spec(max_frame=400), data_dir=tmp_path)
    trial.run()
    for log in (trial.paths.run_log, trial.paths.trial_log):
        assert "trial_metrics: frame:4.00e+02" in log.read_text()
