import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from slm_lab.experiment.checkpoint import Checkpoints

STATE = {
    "net": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(3, dtype=torch.bfloat16)},
    "memory": {"obs": np.arange(8, dtype=np.uint8).reshape(2, 4), "size": 2, "rng": {"state": {"inc": 2**100}}},
    "clock": {"frame": 7, "name": None, "flags": [True, False], "nested": [{"x": torch.tensor(3)}]},
}


def test_what_is_saved_comes_back_the_same(tmp_path):
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=2)
    checkpoints.save(7, STATE)
    frame, state = checkpoints.load()
    assert frame == 7
    assert torch.equal(state["net"]["weight"], STATE["net"]["weight"])
    assert state["net"]["bias"].dtype == torch.bfloat16
    np.testing.assert_array_equal(state["memory"]["obs"], STATE["memory"]["obs"])
    assert state["memory"]["rng"] == STATE["memory"]["rng"]
    assert state["clock"]["nested"][0]["x"].item() == 3
    del state["clock"]["nested"]
    assert state["clock"] == {"frame": 7, "name": None, "flags": [True, False]}


def test_only_the_components_asked_for_are_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=2)
    folder = checkpoints.save(7, STATE)
    (folder / "memory.safetensors").unlink()
    assert checkpoints.load({"net"})[1].keys() == {"net"}


def test_the_newest_ones_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=2)
    for frame in (900, 1000, 20000):
        checkpoints.save(frame, {"clock": {"frame": frame}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt-1000", "ckpt-20000"]
    assert checkpoints.load()[0] == 20000


def test_stems_that_begin_alike_do_not_mix(tmp_path):
    Checkpoints(tmp_path, "ckpt", keep=1).save(1, {"clock": {}})
    Checkpoints(tmp_path, "ckpt-best", keep=1).save(2, {"clock": {}})
    assert Checkpoints(tmp_path, "ckpt", keep=1).load()[0] == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "no_manifest", "missing"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=2)
    checkpoints.save(1, STATE)
    newest = checkpoints.save(2, STATE)
    victim = newest / "memory.safetensors"
    match damage:
        case "truncate":
            victim.write_bytes(victim.read_bytes()[:-1])
        case "flip":
            victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
        case "no_manifest":
            (newest / "manifest.json").unlink()
        case "missing":
            victim.unlink()
    assert checkpoints.load()[0] == 1


def test_nothing_valid_is_nothing(tmp_path):
    assert Checkpoints(tmp_path / "none", "ckpt", keep=1).load() is None


WRITER = """
import sys, torch
from pathlib import Path
from slm_lab.experiment.checkpoint import Checkpoints
c = Checkpoints(Path(sys.argv[1]), "ckpt", keep=2)
for frame in range(1, 100000):
    c.save(frame, {"net": {"w": torch.full((20000,), float(frame))}, "clock": {"frame": frame}})
    print(frame, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_valid_checkpoint(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(5):
            done = int(writer.stdout.readline())
        time.sleep(0.003 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        done = int(rest[-1]) if rest else done
        frame, state = Checkpoints(folder, "ckpt", keep=2).load()
        assert frame >= done
        assert torch.equal(state["net"]["w"], torch.full((20000,), float(frame)))
        assert state["clock"]["frame"] == frame


def test_the_manifest_lists_every_file(tmp_path):
    folder = Checkpoints(tmp_path, "ckpt", keep=1).save(1, STATE)
    listed = json.loads((folder / "manifest.json").read_text())["files"].keys()
    assert {path.name for path in folder.iterdir()} == {*listed, "manifest.json"}
