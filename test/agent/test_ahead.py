"""The gradient step as a library that another process compiles."""

import os

import pytest
import torch
from agents import Run, make_spec
from loguru import logger
from torch.testing import assert_close

from slm_lab.agent.net import ahead
from slm_lab.agent.net.recorder import record


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where libraries are kept."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path / "slm_lab"


@pytest.fixture
def warnings(monkeypatch):
    """What was warned of."""
    monkeypatch.setattr("slm_lab.agent.net.fallback._warned", set())
    lines = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def trained(spec, frames, compiled):
    """Return metrics and weights of a short run."""
    run = Run(spec)
    if compiled:
        run.agent.compile()
    run.train(frames)
    return run.metrics, run.agent.nets_state()


def test_a_compiled_step_is_the_plain_one_and_is_compiled_once(folder, warnings, monkeypatch):
    spec = make_spec("SAC", net={"hid_layers": [16, 16], "lr_scheduler_spec": {"name": "LinearToZero", "frame": 100}})
    found = trained(spec, 40, compiled=True)
    assert_close(found, trained(spec, 40, compiled=False), rtol=1e-3, atol=1e-5)
    assert len(list(folder.glob("*.so"))) == 2  # of critics and policy
    monkeypatch.delattr(ahead, "_compile")
    assert_close(trained(spec, 40, compiled=True), found, rtol=0, atol=0)
    assert not warnings


def test_without_a_compiler_one_warning_says_so_and_it_goes_on_without(warnings, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    spec = make_spec("SAC")  # two learners
    assert_close(trained(spec, 40, compiled=True), trained(spec, 40, compiled=False), rtol=0, atol=0)
    (warning,) = warnings
    assert "--torch-compile" in warning
    assert "no-such-compiler" in warning


def graph_of(number, x):
    """What `x` times a constant does."""
    return record(lambda x: [x * torch.tensor([number, 1.0])], [x], 0)


def test_a_library_is_for_one_graph_one_layout_and_one_number_of_threads(monkeypatch):
    x = torch.ones(2, 2)
    names = {ahead._name(graph_of(number, x), [x]) for number in (0.5, 0.5, 0.25)}
    assert len(names) == 2
    names |= {ahead._name(graph_of(0.5, x), [y]) for y in (x[:1], x[:, :1].expand(2, 2), x.double())}
    assert len(names) == 5
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    assert ahead._name(graph_of(0.5, x), [x]) not in names


@pytest.mark.skipif(os.name == "nt", reason="has no such ids")
def test_what_lies_in_the_folder_of_another_user_is_not_run(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(PermissionError, match="TORCHINDUCTOR_CACHE_DIR"):
        ahead.library_of(graph_of(0.5, torch.ones(2, 2)), [torch.ones(2, 2)])
