"""Ctrl-C and SIGTERM save first."""

import os
import signal
import threading

import pytest
from lab_runs import (
    a_moment,
    alive,
    assert_same_run,
    begin,
    checkpoint_of,
    lab,
    make_spec,
    newest,
    only_run,
    rows,
    run_session,
    wait_until,
)

from slm_lab.experiment.signals import signals_held_back, stop_on_signals
from slm_lab.lib.files import write_json


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_as_long_as_the_context_lasts(signum):
    before = signal.getsignal(signum)
    with stop_on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signum)
        assert stop.requested
    assert signal.getsignal(signum) is before


def test_outside_the_main_thread_there_is_only_the_request():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_on_signals() as stop:
            seen.append(signal.getsignal(signal.SIGINT) is before)
            stop.request()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_a_signal_that_is_held_back_is_not_lost():
    with stop_on_signals() as stop:
        with signals_held_back():
            assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_a_process_begun_while_signals_are_held_back_heeds_them_once_it_can_stop():
    with signals_held_back():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            with stop_on_signals() as stop:
                os._exit(7 if stop.requested else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def begin_run(tmp_path, sessions):
    """Begin a run that takes a while; return the process."""
    (tmp_path / "notes").mkdir()
    keys = {"folder": str(tmp_path / "notes"), "kind": "none", "seconds": 2e-4}
    meta = {"max_session": sessions, "log_frequency": 100}
    spec = make_spec("DoubleDQN", "odd_envs:Trouble", name="slow", max_frame=100_000, meta=meta, **keys)
    write_json(tmp_path / "spec.json", {spec.name: spec.to_dict()})
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    process = lab(tmp_path, "spec.json", "slow", "train", env=environment)
    for index in range(sessions):
        wait_until(lambda index=index: checkpoint_of(tmp_path / "data", "slow", index))
    return spec, process


@pytest.mark.parametrize(
    ("signum", "sessions"),
    [
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
    ],
)
def test_it_saves_and_says_how_to_go_on(tmp_path, signum, sessions):
    spec, process = begin_run(tmp_path, sessions)
    a_moment()
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)  # a terminal sends it to all
    else:
        process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    run = only_run(tmp_path / "data", "slow")
    assert f"train@{run.folder.relative_to(tmp_path)}" in said.splitlines()[-1]
    assert "Traceback" not in said

    # what was saved is where it stopped, not the last checkpoint by time: it goes on from there as if never stopped
    stopped_at = [newest(run, index)[0] for index in range(sessions)]
    assert min(stopped_at) >= 100
    longer = {"env": spec.to_dict()["env"] | {"seconds": 0.0}}
    for index, frame in enumerate(stopped_at):
        end = frame // 100 * 100 + 200
        once = type(spec).from_dict("slow", spec.to_dict() | {"env": longer["env"] | {"max_frame": end}})
        run_session(once, run, index)
        never = begin(tmp_path / f"never{index}", once)
        run_session(once, never, index)
        assert rows(run, index) == rows(never, index)
    if sessions == 1:
        assert_same_run(run, never)


def test_a_signal_to_the_whole_group_as_the_sessions_start(tmp_path):
    """As `timeout` sends it: it meets the server of the sessions' processes while that is still importing."""
    (tmp_path / "notes").mkdir()
    keys = {"folder": str(tmp_path / "notes"), "kind": "none", "seconds": 2e-4}
    spec = make_spec("DoubleDQN", "odd_envs:Trouble", name="slow", max_frame=100_000, meta={"max_session": 2}, **keys)
    write_json(tmp_path / "spec.json", {spec.name: spec.to_dict()})
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    process = lab(tmp_path, "spec.json", "slow", "train", env=environment)
    wait_until(lambda: any((tmp_path / "data").glob("slow_20*/info/*_derived.json")))
    a_moment()
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said


@pytest.mark.slow
def test_sessions_whose_parent_is_killed_notice_it_and_save(tmp_path):
    _, process = begin_run(tmp_path, 2)
    children = [int(note.name.removeprefix("pid-")) for note in (tmp_path / "notes").glob("pid-*")]
    assert len(children) == 2
    assert all(alive(pid) for pid in children)
    process.kill()  # only the parent
    process.wait()
    process.stderr.close()
    wait_until(lambda: not any(alive(pid) for pid in children))
    run = only_run(tmp_path / "data", "slow")
    for index in (0, 1):
        frame, _ = newest(run, index)
        assert 100 <= frame < 100_000
        assert int(rows(run, index)[-1]["frame"]) <= frame
