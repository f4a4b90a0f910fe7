"""Runs go to a hub and come back, over HTTP; what a hub that means ill sends does not come in."""

import json
import pickle
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_run

pytest.importorskip("huggingface_hub")
import numpy as np
from hub_server import running_hub
from safetensors.numpy import load_file, save_file

from slm_lab.cli import main
from slm_lab.experiment.retro import retro
from slm_lab.experiment.share import _problem, list_remote, pull, push
from slm_lab.spec import SpecError

RUN = "ppo_2026_01_31_120000"
GB = 10**9


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("BROWSER_PATH", "/no/browser/here")
    with running_hub(monkeypatch) as server:
        yield server


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint, and with what does not travel."""
    made = made_run(tmp_path / "made", "ppo", [[1.0, 2.0], [3.0, 4.0]]).folder
    folder = shutil.move(made, tmp_path / "made" / RUN)
    checkpoint = folder / "model" / "ppo_t0_s0_ckpt-best-200"
    checkpoint.mkdir()
    save_file({"weight": np.arange(6.0).reshape(2, 3)}, checkpoint / "net.safetensors")
    (checkpoint / "manifest.json").write_text("{}")
    (folder / "graph" / "ppo_t0_trial_graph_mean_returns_vs_frames.html").write_text("<script>")
    (folder / "model" / "ppo_t0_s0_net_model.pt").write_bytes(b"PK")
    (folder / "log" / "ppo.log").write_text("…")
    (folder / ".hidden.json").write_text("{}")
    (folder / "outside.json").symlink_to("/etc/hostname")
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def serve(hub, path, data, size=None):
    """Put a file into a run of the hub, whatever its name; `size` is what the listing says."""
    hub.repos.setdefault("me/runs", {})[path] = data
    if size is not None:
        hub.listed[path] = size


def fetch(hub, tmp_path, pattern="ppo", max_bytes=GB):
    return pull(pattern, "me/runs", tmp_path / "data", max_bytes)


def assert_nothing_came(tmp_path):
    assert not list((tmp_path / "data").glob("*"))
    assert not list(tmp_path.rglob("*evil*"))


def test_a_run_goes_and_comes_back_the_same(hub, run, tmp_path):
    assert push([run], "me/runs") == [RUN]
    assert hub.private == {"me/runs"}
    travelled = {path for path in files(run) if path.endswith((".json", ".csv", ".safetensors"))}
    travelled -= {".hidden.json", "outside.json"}
    assert hub.repos["me/runs"].keys() == {f"data/{RUN}/{path}" for path in travelled}
    assert fetch(hub, tmp_path) == [RUN]
    here = tmp_path / "data" / RUN
    assert files(here) == {path: files(run)[path] for path in travelled}
    weights = load_file(here / "model" / "ppo_t0_s0_ckpt-best-200" / "net.safetensors")
    assert weights["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert retro(here).sessions == 2  # the rows are there, so everything else is
    assert [path.name for path in (tmp_path / "data").iterdir()] == [RUN]


def test_what_is_here_already_is_not_fetched_again(hub, run, tmp_path):
    push([run], "me/runs")
    fetch(hub, tmp_path)
    (tmp_path / "data" / RUN / "ppo_spec.json").write_text("mine")
    before = len(hub.requests)
    assert fetch(hub, tmp_path) == []
    assert not [request for request in hub.requests[before:] if "resolve" in request]
    assert (tmp_path / "data" / RUN / "ppo_spec.json").read_text() == "mine"


def test_only_runs_that_match_are_fetched_and_listed(hub, run, tmp_path):
    push([run, shutil.copytree(run, run.parent / "dqn_2026_01_31_120000", symlinks=True)], "me/runs")
    assert [listed.name for listed in list_remote("me/runs")] == ["dqn_2026_01_31_120000", RUN]
    [listed] = list_remote("me/runs", "ppo")
    assert listed.size == sum(len(data) for path, data in hub.repos["me/runs"].items() if RUN in path)
    assert fetch(hub, tmp_path, "dqn") == ["dqn_2026_01_31_120000"]


# --- a hub that means ill


@pytest.mark.parametrize(
    "path",
    [
        f"data/{RUN}/../../evil.json",
        f"data/{RUN}/model/../../../../evil.json",
        f"data/{RUN}//etc/evil.json",
        f"data/{RUN}/.bashrc.json",
        f"data/{RUN}/model/.cache/evil.json",
        f"data/{RUN}/C:\\evil.json",
        f"data/{RUN}/a/b/c/d/e.json",
        f"data/{RUN}/evil\n.json",
        "data/..ppo/evil.json",
        "data/ppo/evil.json",
        "data/.ppo_2026_01_31_120000/evil.json",
    ],
)
def test_a_path_that_leads_elsewhere_stops_the_run_before_anything_is_fetched(path, hub, tmp_path):
    serve(hub, f"data/{RUN}/ppo_spec.json", b"{}")
    serve(hub, path, b"{}")
    with pytest.raises(SpecError, match="the run is not fetched"):
        fetch(hub, tmp_path)
    assert not [request for request in hub.requests if "resolve" in request]
    assert_nothing_came(tmp_path)


@given(st.text(max_size=30) | st.from_regex(r"[./a-z\\]{1,12}\.json", fullmatch=True))
def test_no_path_that_passes_leaves_the_folder_of_the_run(tail):
    path = f"data/{RUN}/{tail}"
    if _problem(path) is None:
        parts = path.split("/")
        assert parts[:2] == ["data", RUN]
        assert 3 <= len(parts) <= 5
        assert not any(part in ("", ".", "..") or part.startswith(".") or "\\" in part for part in parts)


@pytest.mark.parametrize(
    ("size", "said"), [(2 * GB, "--max-size is 1 GB"), (-1, "a size of -1"), (10**18, "--max-size")]
)
def test_a_size_that_must_not_be_stops_the_run_before_anything_is_fetched(size, said, hub, tmp_path):
    serve(hub, f"data/{RUN}/ppo_spec.json", b"{}", size)
    with pytest.raises(SpecError, match=said):
        fetch(hub, tmp_path)
    assert not [request for request in hub.requests if "resolve" in request]
    assert_nothing_came(tmp_path)


def test_what_would_fill_the_disk_is_not_fetched(hub, tmp_path):
    serve(hub, f"data/{RUN}/ppo_spec.json", b"{}", 10**17)
    with pytest.raises(SpecError, match="GB free"):
        fetch(hub, tmp_path, max_bytes=10**18)


def tensors(header):
    data = json.dumps(header).encode()
    return len(data).to_bytes(8, "little") + data


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("ppo_spec.json", b'{"half', "no json file"),
        ("info/rows.csv", b"a,b\n\0\n", "no csv file: holds a zero byte"),
        ("info/rows.csv", b"\xff\xfe", "no csv file"),
        ("model/a.safetensors", pickle.dumps({"a": 1}), "no safetensors file"),
        ("model/a.safetensors", b"", "no safetensors file"),
        ("model/a.safetensors", (2**40).to_bytes(8, "little") + b"{}", "a header of"),
        ("model/a.safetensors", tensors({"w": {"data_offsets": [0, 64]}}), "not within the file"),
        ("model/a.safetensors", tensors({"w": [1]}), "not within the file"),
    ],
)
def test_content_that_is_not_what_its_name_says_is_not_taken(name, data, said, hub, tmp_path):
    serve(hub, f"data/{RUN}/a_spec.json", b"{}")
    serve(hub, f"data/{RUN}/{name}", data)
    with pytest.raises(SpecError, match=said):
        fetch(hub, tmp_path)
    assert_nothing_came(tmp_path)


def test_a_file_larger_than_announced_is_not_taken(hub, tmp_path):
    serve(hub, f"data/{RUN}/a_spec.json", b"{}" + b" " * 100, size=2)
    with pytest.raises(SpecError, match="102 bytes came, 2 were announced"):
        fetch(hub, tmp_path)
    assert_nothing_came(tmp_path)


def test_pickles_and_pages_stay_there(hub, tmp_path):
    serve(hub, f"data/{RUN}/ppo_spec.json", b"{}")
    for name in ("model/net_model.pt", "info/metrics.pkl", "graph/curve.html", "run.py"):
        serve(hub, f"data/{RUN}/{name}", b"evil")
    assert fetch(hub, tmp_path) == [RUN]
    assert files(tmp_path / "data" / RUN) == {"ppo_spec.json": b"{}"}
    serve(hub, "data/pkl_2026_01_31_120000/a.pkl", b"evil")
    with pytest.raises(SpecError, match="nothing to fetch"):
        fetch(hub, tmp_path, "pkl")


# --- the commands


def test_the_commands(hub, run, tmp_path, capsys):
    assert main(["push", str(run)]) == 0
    assert main(["list", "--remote", "pp", "--data", str(tmp_path)]) == 0
    assert main(["pull", "ppo", "--data", str(tmp_path / "data")]) == 0
    assert main(["list", "--remote", "--data", str(tmp_path / "data")]) == 0
    pushed, listed, pulled, again = capsys.readouterr().out.splitlines()
    assert (pushed, pulled) == (RUN, str(tmp_path / "data" / RUN))
    assert listed.startswith(f"{RUN}  ")
    assert listed.endswith(" kB")
    assert again.endswith("  here")


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["push", "RUN", "--repo", "no slash here"], "write USER/NAME"),
        (["push", "no_such"], "no_such"),
        (["pull", "ppo", "--repo", "me/other"], "me/other: no such dataset repository"),
        (["pull", "nothing"], "no run there whose name has 'nothing'"),
        (["list", "--remote", "nothing"], "no run there whose name has 'nothing'"),
    ],
)
def test_bad_input_is_one_line(words, say, hub, run, tmp_path, capsys):
    hub.repos["me/runs"] = {}
    assert main([str(run) if word == "RUN" else word for word in words]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("slm-lab: ")]
    assert say in line


def test_a_stranger_and_a_hub_that_is_away(hub, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(run)]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["list", "--remote"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
