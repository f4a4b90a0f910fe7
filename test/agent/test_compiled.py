"""The gradient step as one graph."""

import copy
import json
from collections import Counter

import pytest
import torch
from agents import Run, make_spec
from torch import nn
from torch._inductor.virtualized import V
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from slm_lab.agent.net import make_net
from slm_lab.agent.net.critics import Critics
from slm_lab.agent.net.graph_text import as_plain, from_plain
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.spec.net import ConvNet, MLPNet

FALLING = {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 100}}


def trained(spec, frames, hand_over=None):
    """Return metrics and weights of a short run, its steps handed over to a compiler."""
    run = Run(spec)
    for learner in run.agent.algorithm.learners.values() if hand_over else ():
        hand_over(learner)
    run.train(frames)
    return run.metrics, run.agent.nets_state()


# traced as for a compiler, and then run op by op, which saves seconds


def by_torch(learner):
    learner.compile("aot_eager")


def ahead(learner):
    learner.compile_ahead()


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Graphs in the place of libraries, written down and read again as for another process."""
    torch.compiler.reset()

    def run(graph, _inputs):
        told = from_plain(json.loads(json.dumps(as_plain(graph))))
        return lambda tensors: told(*tensors)

    monkeypatch.setattr("slm_lab.agent.net.ahead.library_of", run)


@pytest.mark.parametrize("hand_over", [by_torch, ahead])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Reinforce", {}),  # its batches are of any length
        ("A2C", {"net": {"optim_spec": {"name": "RMSprop", "lr": 0.01}}}),  # steps after the graph
        ("PPO", {"net": {"optim_spec": {"name": "AdamW", "lr": 0.01, "amsgrad": True}, **FALLING}}),
        ("PPOSIL", {"net": {"shared": True, **FALLING}}),
        ("DQN", {"net": {"clip_grad_val": None, **FALLING}}),
        ("DQN", {"net": {"spectral_norm": True}}),
        ("SAC", {}),
        # a bias before a norm by the batch has no gradient but rounding errors, which a small eps makes steps of
        ("CrossQ", {"net": {"optim_spec": {"name": "Adam", "lr": 0.01, "eps": 1e-3}}}),
        ("TD3", {}),
        ("TD3", {"meta": {"precision": "bfloat16"}}),
    ],
)
def test_a_compiled_step_is_the_plain_one(name, keys, hand_over, warnings, monkeypatch):
    if hand_over is ahead:
        monkeypatch.delattr(Learner, "compile")  # nothing is left to it
    spec = make_spec(name, **keys)
    # one rounding of bfloat16 goes a long way; float32 in its place would be off by seven times as much at once
    frames, atol = (20, 2e-4) if "meta" in keys else (60, 1e-5)
    assert_close(trained(spec, frames, hand_over), trained(spec, frames), rtol=1e-3, atol=atol)
    assert not warnings


def test_what_no_graph_of_its_own_can_repeat_is_left_to_torch_compile(warnings, monkeypatch):
    handed = []

    def compile(learner):  # noqa: A001 - in the place of the method
        handed.append(learner)
        by_torch_compile(learner, "aot_eager")

    by_torch_compile = Learner.compile
    monkeypatch.setattr(Learner, "compile", compile)
    spec = make_spec("Rainbow")  # its noise, and the returns that its atoms stand for, are neither weights nor batch
    assert_close(trained(spec, 60, ahead), trained(spec, 60), rtol=1e-3, atol=1e-5)
    assert len(handed) == 1
    assert not warnings


def test_where_there_is_no_compiler_one_warning_says_so_and_it_goes_on_without(warnings):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    spec = make_spec("SAC")  # two learners
    found = trained(spec, 60, lambda learner: learner.compile(broken))
    assert_close(found, trained(spec, 60), rtol=0, atol=0)
    (warning,) = warnings
    assert "--torch-compile" in warning
    assert "no compiler here" in warning


@pytest.mark.parametrize("hand_over", [by_torch, ahead])
def test_it_goes_on_from_a_loaded_state(hand_over, warnings):
    net = nn.Linear(3, 1)
    group = ParameterGroup(net.parameters(), MLPNet(hid_layers=[], optim_spec={"name": "Adam", "lr": 0.1}))
    learner = Learner(lambda net, x: (net(x).square().mean(), {}), net, [group])
    hand_over(learner)

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


def test_products_give_away_their_bias_and_those_with_vectors_are_none():
    from slm_lab.agent.net.simpler_products import SimplerProducts

    def layers(bias, x, weight, vector):
        hidden = torch.addmm(bias, x, weight)
        several = torch.stack([hidden, hidden])
        vectors = several @ torch.stack([vector, vector]), vector.T @ several.mT
        with_bias = torch.baddbmm(bias, several.mT, several), torch.addmm(bias, x, weight, beta=2)
        return hidden, hidden @ vector, vector @ vector.T, *vectors, *with_bias

    inputs = [torch.randn(8), torch.randn(5, 3), torch.randn(3, 8), torch.randn(8, 1)]
    traced = make_fx(layers, tracing_mode="fake")(*inputs)
    fake = next(iter(traced.graph.nodes)).meta["val"].fake_mode
    with V.set_fake_mode(fake):
        SimplerProducts()(traced.graph)
    traced.recompile()
    called = Counter(node.target for node in traced.graph.nodes)
    for product in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
        assert called[product.default] == 1
    assert not called[torch.ops.aten.baddbmm.default]
    assert_close(traced(*inputs), layers(*inputs))


def seen_by_a_compiler(function, *inputs):
    """Return what a function comes to where a compiler looks at it, and how often what was called."""
    torch.compiler.reset()
    called = Counter()

    def count(graph, _inputs):
        called.update(getattr(node.target, "__name__", node.target) for node in graph.graph.nodes)
        return graph.forward

    return torch.compile(function, fullgraph=True, backend=count)(*inputs), called


MLP = MLPNet(hid_layers=[16, 8], hid_layers_activation="relu", out_layer_activation="tanh")


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("spec", "shape", "action_width", "outputs", "batched"),
    [
        (MLP, (3,), 2, 1, 3),
        (MLP, (3,), 0, 4, 3),
        (MLP, (2, 3), 2, 1, 3),
        (MLP.model_copy(update={"hid_layers": [8]}), (3,), 2, 1, 2),
        (MLP.model_copy(update={"layer_norm": True}), (3,), 2, 1, 0),
        (MLP.model_copy(update={"hid_layers_activation": "prelu"}), (3,), 2, 1, 0),
        (ConvNet(conv_hid_layers=[[4, 3, 2]], fc_hid_layers=[8]), (1, 8, 8), 2, 1, 0),  # each has its own convolution
    ],
)
def test_a_layer_of_twin_critics_is_one_batch_of_products(spec, shape, action_width, outputs, batched, precision):
    critics = Critics(spec, shape, action_width, outputs)
    for twin in critics.nets:
        twin.net.precision = precision
    inputs = torch.randn(5, *shape), torch.randn(5, action_width)

    def gradients(values):
        return values, *torch.autograd.grad(values.square().sum(), list(critics.parameters()))

    values, called = seen_by_a_compiler(critics, *inputs)
    assert called["baddbmm"] == batched
    assert (called["linear"] == 0) == bool(batched)
    assert_close(gradients(values), gradients(critics(*inputs)))


def test_several_heads_are_one_product():
    net = make_net(MLPNet(hid_layers=[8]), (3,), [2, 1])
    obs = torch.randn(5, 3)
    found, called = seen_by_a_compiler(net, obs)
    assert called["linear"] == 2
    assert_close(found, net(obs))
