"""Small runs, how to begin and to end them, and what is compared between them."""

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.experiment.paths import RunPaths, new_run
from slm_lab.experiment.session import Session
from slm_lab.experiment.trial import PRELOADED
from slm_lab.lib.files import write_json
from slm_lab.spec import Spec

PATIENCE = 60.0
CONSTANT = {"name": "no_decay", "start_val": 0.2}
NET = {"type": "MLPNet", "hid_layers": [8], "hid_layers_activation": "tanh", "optim_spec": {"name": "Adam", "lr": 1e-3}}
CONV = {"type": "ConvNet", "conv_hid_layers": [[4, 8, 8, 0, 1]], "fc_hid_layers": [8]}
AGENTS = {
    "PPO": {
        "algorithm": {
            "name": "PPO",
            "gamma": 0.99,
            "lam": 0.95,
            "time_horizon": 16,
            "minibatch_size": 32,
            "training_epoch": 2,
            "clip_eps_spec": CONSTANT,
            "entropy_coef_spec": {"name": "linear_decay", "start_val": 0.01, "end_val": 0.0, "end_step": 2000},
        },
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": NET | {"shared": False, "clip_grad_val": 0.5},
    },
    "Reinforce": {
        "algorithm": {"name": "Reinforce", "gamma": 0.99, "training_frequency": 2},
        "memory": {"name": "OnPolicyReplay"},
        "net": NET,
    },
    "DoubleDQN": {
        "algorithm": {
            "name": "DoubleDQN",
            "action_policy": "epsilon_greedy",
            "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 1000},
            "gamma": 0.99,
            "training_frequency": 8,
            "training_start_step": 64,
        },
        "memory": {"name": "Replay", "batch_size": 16, "max_size": 400},
        "net": NET | {"update_type": "polyak", "polyak_coef": 0.05, "clip_grad_val": 10},
    },
}


def make_spec(algorithm="PPO", env="CartPole-v1", name="tiny", meta=None, net=None, **env_keys):
    agent = AGENTS[algorithm] | {"name": algorithm}
    body = agent["net"] | (net or {})
    if body["type"] == "ConvNet":
        del body["hid_layers"]
    return Spec.from_dict(
        name,
        {
            "agent": agent | {"net": body},
            "env": {"name": env, "num_envs": 4, "max_frame": 1000} | env_keys,
            "meta": {"max_session": 1, "log_frequency": 200, "seed": 7} | (meta or {}),
        },
    )


def begin(folder, spec):
    """Make the folder of a run and what a trial writes into it."""
    paths = new_run(folder, spec.name)
    for file in (paths.spec, paths.trial_spec, paths.for_session(0).session_spec):
        write_json(file, {spec.name: spec.to_dict()})
    return paths


def run_session(spec, paths, index=0, **options):
    """Run a session here, or go on with it."""
    session = Session(spec, paths.for_session(index), **options)
    session.finished = session.run()
    return session


def stop_at(session, frame):
    """Ask a session to stop when it gets to `frame`."""

    class Stop:
        @property
        def requested(self):
            return session.clock.frame >= frame

    session.stop = Stop()
    return session


def run_and_stop(spec, paths, frame, index=0):
    """Run a session until `frame`, where it saves and stops."""
    return stop_at(Session(spec, paths.for_session(index)), frame).run()


# --- what is compared


def rows(paths, session=0, kind="train"):
    """The rows of a session as text, without the columns that tell the time."""
    with paths.for_session(session).session_df(kind).open() as file:
        table = list(csv.DictReader(file))
    return [
        {name: cell for name, cell in row.items() if name not in ("fps", "wall_t") and not name.startswith("time_")}
        for row in table
    ]


def newest(paths, session=0, kind="ckpt"):
    """The newest checkpoint: (frame, state)."""
    return Checkpoints(paths.model_dir, f"{paths.for_session(session).session_prefix}_{kind}", keep=2).load()


def same(left, right):
    """Tell whether two trees of tensors, arrays and plain values are equal to the bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return torch.equal(torch.as_tensor(left), torch.as_tensor(right)) if hasattr(left, "shape") else left == right


def assert_same_run(left, right, sessions=1):
    """Compare rows, and everything in the last and the best checkpoint but the time."""
    for index in range(sessions):
        assert rows(left, index) == rows(right, index)
        (frame, one), (other_frame, other) = newest(left, index), newest(right, index)
        for state in (one, other):
            del state["clock"]["wall_t"]
        assert frame == other_frame
        assert one.keys() == other.keys()
        for part in one:
            assert same(one[part], other[part]), part
        assert same(newest(left, index, "ckpt-best"), newest(right, index, "ckpt-best"))


# --- processes


def in_child(function, *args):
    """Begin `function` in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    child = context.Process(target=function, args=args)
    child.start()
    return child


def run_and_save_often(spec, paths):
    """Run a session that saves at every row, so that a kill may well meet it while it writes."""
    from slm_lab.experiment import session

    session.SAVE_SECONDS, session.SAVE_SHARE = 0.0, 1e9
    run_session(spec, paths)


def lab(folder, *words, **options):
    """Begin `slm-lab WORDS` in `folder`, leading a process group of its own."""
    program = [sys.executable, "-c", "import sys; from slm_lab.cli import main; sys.exit(main())"]
    return subprocess.Popen(
        [*program, *words], cwd=folder, start_new_session=True, text=True, stderr=subprocess.PIPE, **options
    )


def wait_until(condition):
    """Wait for something to become true; return it."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.005)
    return value


def checkpoint_of(folder, spec_name, session=0):
    """Return whether a session of the only run in `folder` has a checkpoint."""
    return any(folder.glob(f"{spec_name}_20*/model/{spec_name}_t0_s{session}_ckpt-[0-9]*"))


def a_moment():
    time.sleep(random.uniform(0.0, 0.3))


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def only_run(folder, spec_name):
    (run,) = Path(folder).glob(f"{spec_name}_20*")
    return RunPaths(run, spec_name)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
