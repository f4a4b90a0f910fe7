"""The gradient step as one graph."""

import copy
from collections import Counter

import pytest
import torch
from agents import Run, make_spec
from loguru import logger
from torch import nn
from torch._inductor.virtualized import V
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.spec.net import MLPNet

FALLING = {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 100}}


@pytest.fixture
def warnings():
    """What was warned of."""
    torch.compiler.reset()
    lines = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def trained(spec, frames, backend=None):
    """Return metrics and weights of a short run; with a backend, its steps are compiled."""
    run = Run(spec)
    for learner in run.agent.algorithm.learners.values() if backend else ():
        learner.compile(backend)
    run.train(frames)
    return run.metrics, run.agent.nets_state()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Reinforce", {}),  # its batches are of any length
        ("A2C", {"net": {"optim_spec": {"name": "RMSprop", "lr": 0.01}}}),  # steps after the graph
        ("PPO", {"net": {"optim_spec": {"name": "AdamW", "lr": 0.01, "amsgrad": True}, **FALLING}}),
        ("PPOSIL", {"net": {"shared": True, **FALLING}}),
        ("DQN", {"net": {"clip_grad_val": None, **FALLING}}),
        ("Rainbow", {}),
        ("SAC", {}),
        # a bias before a norm by the batch has no gradient but rounding errors, which a small eps makes steps of
        ("CrossQ", {"net": {"optim_spec": {"name": "Adam", "lr": 0.01, "eps": 1e-3}}}),
        ("TD3", {}),
        ("TD3", {"meta": {"precision": "bfloat16"}}),
    ],
)
def test_a_compiled_step_is_the_plain_one(name, keys, warnings):
    spec = make_spec(name, **keys)
    # traced as for a compiler, and then run op by op, which saves seconds
    # one rounding of bfloat16 goes a long way; float32 in its place would be off by four times as much
    atol = 2e-4 if "meta" in keys else 1e-5
    assert_close(trained(spec, 60, "aot_eager"), trained(spec, 60), rtol=1e-3, atol=atol)
    assert not warnings


def test_where_there_is_no_compiler_one_warning_says_so_and_it_goes_on_without(warnings):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    spec = make_spec("DQN")
    assert_close(trained(spec, 60, broken), trained(spec, 60), rtol=0, atol=0)
    (warning,) = warnings
    assert "--torch-compile" in warning
    assert "no compiler here" in warning


def test_it_goes_on_from_a_loaded_state(warnings):
    net = nn.Linear(3, 1)
    group = ParameterGroup(net.parameters(), MLPNet(hid_layers=[], optim_spec={"name": "Adam", "lr": 0.1}))
    learner = Learner(lambda net, x: (net(x).square().mean(), {}), net, [group])
    learner.compile("aot_eager")

    def some_steps():
        for x in torch.eye(3).split(1):
            learner.step(x)
        return {name: value.clone() for name, value in net.state_dict().items()}

    weights, state = some_steps(), copy.deepcopy(learner.state_dict())
    ends = some_steps()
    net.load_state_dict(weights)
    learner.load_state_dict(state)
    assert_close(some_steps(), ends, rtol=0, atol=0)
    assert not warnings


def test_a_step_through_the_compiler_is_the_plain_one(warnings):
    spec = make_spec("SAC", net={"hid_layers": [16, 16]})
    assert_close(trained(spec, 40, "inductor"), trained(spec, 40), rtol=1e-3, atol=1e-5)
    assert not warnings


def test_products_give_away_their_bias_and_those_with_vectors_are_none():
    from slm_lab.agent.net.simpler_products import SimplerProducts

    def layers(bias, x, weight, vector):
        hidden = torch.addmm(bias, x, weight)
        return hidden, hidden @ vector, vector @ vector.T, vector.T @ hidden.T, torch.addmm(bias, x, weight, beta=2)

    inputs = [torch.randn(8), torch.randn(5, 3), torch.randn(3, 8), torch.randn(8, 1)]
    traced = make_fx(layers, tracing_mode="fake")(*inputs)
    fake = next(iter(traced.graph.nodes)).meta["val"].fake_mode
    with V.set_fake_mode(fake):
        SimplerProducts()(traced.graph)
    traced.recompile()
    called = Counter(node.target for node in traced.graph.nodes)
    assert called[torch.ops.aten.mm.default] == called[torch.ops.aten.addmm.default] == 1
    assert_close(traced(*inputs), layers(*inputs))
