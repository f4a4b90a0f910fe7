"""A search whose driver or workers are killed, with Ray and without."""

import json
import os
import signal
import socket
import subprocess
import time

import optuna
import pytest
from lab_runs import kill_group, lab, make_spec, only_run

from slm_lab.experiment.baseline import STORE, baseline_key
from slm_lab.experiment.pool import RayPool, _files_of
from slm_lab.experiment.search_results import read_table
from slm_lab.lib.files import write_json
from slm_lab.spec import SpecError

GAMMA = "agent.algorithm.gamma"
PATIENCE = 600.0  # Ray takes its time to begin, where the machine is busy


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.02)


def begin_search(folder, *words, trials=3, sessions=2, seconds=1e-3, max_frame=2000):
    """Write the spec of a slow search, and begin it."""
    (folder / "notes").mkdir(exist_ok=True)
    keys = {"folder": str(folder / "notes"), "kind": "none", "seconds": seconds}
    meta = {"max_session": sessions, "max_trial": trials, "log_frequency": 100}
    spec = make_spec("PPO", "odd_envs:Trouble", name="slow", max_frame=max_frame, meta=meta, **keys).to_dict()
    (folder / "data").mkdir(exist_ok=True)
    write_json(folder / "data" / STORE, {baseline_key("odd_envs:Trouble", keys): -50.0})  # else it is played, slowly
    write_json(folder / "spec.json", {"slow": spec | {"search": {f"{GAMMA}__uniform": [0.9, 0.99]}}})
    return go_on(folder, "search", *words)


def go_on(folder, mode, *words):
    path = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))  # noqa: PTH120
    environment = {**os.environ, "PYTHONPATH": path, "BROWSER_PATH": "/no/browser", "RAY_ADDRESS": ""}
    del environment["RAY_ADDRESS"]
    return lab(folder, "spec.json", "slow", mode, *words, env=environment, stdout=subprocess.DEVNULL)


def states(folder):
    """The states of the trials in the study of the only run, as far as it is written."""
    run = only_run(folder / "data", "slow")
    backend = optuna.storages.journal.JournalFileBackend(str(run.study))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return [trial.state.name for trial in study.trials]


def values(folder):
    run = only_run(folder / "data", "slow")
    specs = sorted(run.folder.glob("slow_t?_spec.json"))
    return [json.loads(file.read_text())["slow"]["agent"]["algorithm"]["gamma"] for file in specs]


def frames(folder, trial, session):
    run = only_run(folder / "data", "slow").for_trial(trial).for_session(session)
    return [int(line.split(",")[4]) for line in run.session_df("train").read_text().splitlines()[1:]]


def checkpoint(folder, trial, session=0):
    return any(folder.glob(f"data/slow_20*/model/slow_t{trial}_s{session}_ckpt-[0-9]*"))


def finish(process):
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def check_whole(folder, trials, sessions=2):
    assert states(folder) == ["COMPLETE"] * trials
    assert [row.trial for row in read_table(only_run(folder / "data", "slow"))] == list(range(trials))
    for trial in range(trials):
        for session in range(sessions):
            assert frames(folder, trial, session) == list(range(100, 2001, 100))


def test_killed_without_ray(tmp_path):
    process = begin_search(tmp_path, "--serial", trials=2, sessions=1)
    wait_until(lambda: checkpoint(tmp_path, 1))
    kill_group(process)
    assert states(tmp_path) == ["COMPLETE", "RUNNING"]
    before = values(tmp_path)
    said = finish(go_on(tmp_path, "search@latest", "--serial"))
    assert "trial 0 begins" not in said
    assert values(tmp_path) == before
    check_whole(tmp_path, 2, sessions=1)
    log = (only_run(tmp_path / "data", "slow").log_dir / "slow_t1_s0.log").read_text()
    assert "resumed at frame" in log


def test_interrupted_without_ray_the_same_command_goes_on(tmp_path):
    process = begin_search(tmp_path, "--serial", trials=2, sessions=1)
    wait_until(lambda: checkpoint(tmp_path, 0))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "go on with: slm-lab" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert states(tmp_path) == ["RUNNING"]
    said = finish(go_on(tmp_path, "search", "--serial"))
    assert "going on with data" in said
    check_whole(tmp_path, 2, sessions=1)


def children(pid):
    """All processes below a process."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()[1:]]
    found, new = {}, {pid}
    while new:
        below = {int(row[0]): row[2] for row in rows if int(row[1]) in new}
        found |= below
        new = set(below)
    return found


@pytest.mark.slow
def test_killed_with_ray(tmp_path):
    """The driver twice, and a worker once: no trial is lost, and none is drawn twice."""
    process = begin_search(tmp_path)
    wait_until(lambda: checkpoint(tmp_path, 0, 0) and checkpoint(tmp_path, 0, 1))
    workers = [pid for pid, args in children(process.pid).items() if "run_stretch" in args]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: checkpoint(tmp_path, 1))
    kill_group(process)
    before = values(tmp_path)
    process = go_on(tmp_path, "search@latest")
    wait_until(lambda: checkpoint(tmp_path, 2))
    kill_group(process)
    assert values(tmp_path)[: len(before)] == before
    finish(go_on(tmp_path, "search@latest"))
    assert values(tmp_path)[: len(before)] == before
    check_whole(tmp_path, 3)


@pytest.mark.slow
def test_stopped_with_ray_it_saves(tmp_path):
    process = begin_search(tmp_path, trials=1)
    wait_until(lambda: checkpoint(tmp_path, 0, 0) and checkpoint(tmp_path, 0, 1))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert states(tmp_path) == ["RUNNING"]
    finish(go_on(tmp_path, "search@latest"))
    check_whole(tmp_path, 1)
    log = (only_run(tmp_path / "data", "slow").log_dir / "slow_t0_s0.log").read_text()
    assert "stopping; saving at frame" in log
    assert "resumed at frame" in log


@pytest.mark.slow
def test_a_spec_that_does_not_fit_is_refused_in_one_line(tmp_path):
    process = begin_search(tmp_path, "-s", "agent.net.optim_spec.name=Adamm")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2, said
    assert said.splitlines()[-1].startswith("slm-lab: agent.net.optim_spec.name: ")
    assert "Traceback" not in said
    assert not list((tmp_path / "data").glob("slow_*"))


@pytest.mark.slow
def test_what_can_never_be_held_is_refused(tmp_path):
    process = begin_search(tmp_path, "-s", 'meta.search_resources={"cpu": 1000}')
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2, said
    assert "a session is to have 1000 cores and 0 GPUs, but there is no machine with more than" in said
    assert not list((tmp_path / "data").glob("slow_*"))


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine(tmp_path):
    """Two machines with a core each, one of which is killed; the environment's module travels to both."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        process = begin_search(tmp_path, "--ray-address", cluster.address, trials=2)
        wait_until(lambda: checkpoint(tmp_path, 0, 0) and checkpoint(tmp_path, 0, 1))
        cluster.remove_node(nodes[0], allow_graceful=False)
        said = finish(process)
    finally:
        cluster.shutdown()
    assert "2 sessions at once (3 machines, 2 cores, 0 GPUs" in said
    check_whole(tmp_path, 2)
    logs = [file.read_text() for file in (only_run(tmp_path / "data", "slow").log_dir).glob("slow_t*_s*.log")]
    assert any("resumed at frame" in log for log in logs)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_refused_before_ray_begins(scheme, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda **_keys: pytest.fail("Ray begins"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(SpecError, match=f"--ray-address {address}: nothing answers there .Connection refused"):
        RayPool(address=address)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (None, "Ray does not begin on this machine, try --serial: no raylet"),
        ("auto", "--ray-address auto: Ray does not answer: no raylet"),
    ],
)
def test_where_ray_does_not_answer_the_remedy_is_named(address, text, monkeypatch):
    import ray

    def init(**_keys):
        raise ConnectionError("no\nraylet")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SpecError) as error:
        RayPool(address=address)
    assert str(error.value) == text


def test_the_modules_that_a_spec_names_travel(tmp_path, monkeypatch):
    from slm_lab.experiment.search import modules_of

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "single.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    spec = make_spec("PPO", "mine.envs:Corridor")
    assert modules_of(spec) == {"mine.envs"}
    assert modules_of(make_spec("PPO", "ALE/Pong-v5")) == set()
    assert _files_of(["mine.envs", "single", "numpy", "no_such"]) == [
        str(tmp_path / "mine"),
        str(tmp_path / "single.py"),
    ]
