"""The gradient step as a library that another process compiles."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from agents import Run, make_spec
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import ahead
from slm_lab.agent.net.fallback import NotRecorded
from slm_lab.agent.net.learner import ParameterGroup
from slm_lab.agent.net.recorder import record
from slm_lab.spec.net import MLPNet


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where libraries are kept."""
    cache = tmp_path / "a cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    return cache / "slm_lab"


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
    (damaged, _), compiled = folder.glob("*.so"), []
    whole = damaged.read_bytes()
    damaged.unlink()  # this process has it
    damaged.write_bytes(whole[:3000])
    compile_ = ahead._compile
    monkeypatch.setattr(ahead, "_compile", lambda told: compiled.append(told) or compile_(told))
    assert_close(trained(spec, 40, compiled=True), found, rtol=0, atol=0)
    assert len(compiled) == 1
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


@pytest.fixture
def names(monkeypatch):
    """What libraries would be called, in the order in which they are asked for."""
    found = []
    name = ahead._name
    monkeypatch.setattr(ahead, "_compile", lambda told: found.append(name(told)) or b"")
    monkeypatch.setattr(torch._C._aoti, "AOTIModelContainerRunnerCpu", lambda *_: SimpleNamespace(run=None))
    return found


def library(x=torch.ones(2, 2), numbers=(0.5,), dtype=torch.float32):  # noqa: B008 - it is not changed
    """Ask for a library of `x` times a constant."""
    ahead.library_of(record(lambda x: [x * torch.tensor(numbers, dtype=dtype)], [x.contiguous()], 0), [x])


def test_a_library_is_for_one_graph_one_layout_and_one_machine(names, monkeypatch):
    library()
    library()
    assert len(names) == 1
    x = torch.ones(2, 2)
    for other in (x[:1], x[:, :1].expand(2, 2), x.double()):
        library(other)
    for keys in ({"numbers": (0.25,)}, {"dtype": torch.float64}, {"numbers": (0.5, 0.5)}):
        library(**keys)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    library()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "another"}, raising=False)
    library()
    monkeypatch.setattr(torch, "__version__", "99.0")
    library()
    monkeypatch.setattr(ahead, "_SOURCES", [])
    library()
    assert len(set(names)) == len(names) == 11


def test_several_who_ask_at_once_have_it_compiled_once(names, monkeypatch):
    def slowly(told):
        time.sleep(0.2)
        names.append(told)
        return b""

    monkeypatch.setattr(ahead, "_compile", slowly)
    graph = record(lambda x: [x * 2], [torch.ones(2)], 0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ahead.library_of(graph, [torch.ones(2)]), range(4)))
    assert len(names) == 1


def test_the_compiler_finds_what_the_run_found_and_nothing_of_the_users_folder(monkeypatch, tmp_path):
    (tmp_path / "copy.py").write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="exit code 1") as error:
        ahead._compile("{}")
    assert "KeyError" in str(error.value)  # it has come as far as to read what it is told


def test_batches_of_many_shapes_and_parts_of_tensors_are_left_to_others(monkeypatch):
    net = nn.Linear(3, 1)
    group = ParameterGroup(net.parameters(), MLPNet(hid_layers=[], optim_spec={"name": "SGD", "lr": 0.1}))
    monkeypatch.setattr(ahead, "library_of", lambda graph, _inputs: lambda tensors: graph(*tensors))
    step = ahead.AheadStep(lambda net, x: (net(x).square().mean(), {}), net, [group])
    with pytest.raises(NotRecorded, match="part"):
        step(torch.ones(2, 4)[:, :3])
    for rows in range(1, ahead.MAX_SHAPES + 1):
        step(torch.ones(rows, 3))
    with pytest.raises(NotRecorded, match="shapes"):
        step(torch.ones(9, 3))
    step(torch.ones(1, 3))
