"""The gradient step of small nets by numpy."""

import copy
import gc
import math
from functools import partial

import numpy as np
import pytest
import torch
from agents import Run, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from slm_lab.agent.net.build import ACTIVATIONS
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.agent.net.numpy_graph import _TABLE, NumpyProgram, trace
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.spec.net import MLPNet

FALLING = {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 100}}


@pytest.fixture
def reasons():
    """Why steps were left to torch."""
    lines = []
    sink = logger.add(lines.append, level="DEBUG", format="{message}", filter=lambda row: "torch" in row["message"])
    yield lines
    logger.remove(sink)


def trained(spec, frames, by_numpy=False):
    """Return a short run."""
    run = Run(spec)
    if by_numpy:
        run.agent.use_numpy()
    run.train(frames)
    return run


def results(run):
    """Return metrics, weights and optimisers' states."""
    optim = {name: learner.state_dict() for name, learner in run.agent.algorithm.learners.items()}
    return run.metrics, run.agent.nets_state(), optim


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("A2C", {"net": {"optim_spec": {"name": "RMSprop", "lr": 0.01}}}),  # torch steps
        ("A2C n-step", {}),
        ("PPO", {"net": {"optim_spec": {"name": "AdamW", "lr": 0.01, "amsgrad": True}, **FALLING}}),
        ("PPO scaled", {}),
        ("PPOSIL", {"net": {"shared": True, **FALLING}}),
        ("SARSA", {}),
        ("VanillaDQN", {}),
        ("DQN", {"net": {"clip_grad_val": None, **FALLING}}),
        ("DQN", {"net": {"layer_norm": True, "loss_spec": {"name": "HuberLoss"}}}),
        ("DoubleDQN", {"net": {"type": "DuelingMLPNet", "hid_layers": [8]}}),
        ("SAC", {}),
        ("SAC Gumbel", {}),
        ("TD3", {}),
    ],
)
def test_a_step_by_numpy_is_the_plain_one(name, keys, reasons):
    spec = make_spec(name, **keys)
    mine = trained(spec, 60, by_numpy=True)
    assert_close(results(mine), results(trained(spec, 60)), rtol=1e-3, atol=1e-5)
    assert mine.agent.in_numpy, reasons


TRANSLATED = sorted(ACTIVATIONS.keys() - {"gelu", "hardshrink", "prelu", "softshrink"})
"""The others are left to torch."""
LOSSES = {
    "mse": partial(functional.mse_loss, reduction="none"),
    "huber": partial(functional.huber_loss, reduction="none", delta=0.7),
    "smooth_l1": partial(functional.smooth_l1_loss, reduction="none", beta=0.7),
    "l1": functional.l1_loss,
    "cross-entropy": lambda x, y: -(y.softmax(-1) * x.log_softmax(-1)),
    "divergence": lambda x, y: functional.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="none"),
    "coins": lambda x, y: functional.logsigmoid(torch.where(y > 0, x, -x)) - functional.softplus(x) * x.sigmoid(),
    "clipped": lambda x, y: torch.minimum(x * y, x.clamp(-0.5, 0.5) * y) + x.clamp(y - 1, y + 1),
    "of columns": lambda x, y: x.gather(1, y.argmax(1, keepdim=True)) * x[:, :1] - x.split([1, x.shape[1] - 1], 1)[1],
    "of rows": lambda x, y: torch.stack([x, y]).amin(0) + torch.cat([x, y], 1).mean(1, keepdim=True) + x[0] ** 3,
    "scaled": lambda x, y: (
        (x - x.mean()) / (x.std(correction=0) + 0.1) + y.var() * x.amax(1, keepdim=True).exp().log1p()
    ),
    "counted": lambda x, y: x * (y > 0).sum(0) + x.softmax(0) * (y > x).sum(-1, keepdim=True) - (y > 0).sum(),
    "placed": lambda x, y: x.select(-1, 0) * y[..., -2:].sum(-1) + x.unbind(-1)[-1] * x[-1:, 0],
    "of truths": lambda x, y: (
        torch.maximum(x, y) * ~(y > 0) + ((y != x) | (y > 1)) * x.clone() + x.ne(9.0) * (x.sum() - 1)
    ),
    "of products": lambda x, y: torch.bmm(x[None], y.T[None])[0].sum(1, keepdim=True) * torch.logical_or(x > 9, y > 0),
    "scattered": lambda x, y: (
        x.scatter_add(1, y.argmax(1, keepdim=True), x[:, :1]) * (y > 0).logical_not() + y % y.exp()
    ),
    "whole": lambda x, y: (
        (x.expm1() + (y % 2).long() * x) * x.new_ones(x.shape) + (x.abs() < 0.9) * y.long() + x.sum(0)
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@given(
    rows=st.integers(1, 6), columns=st.integers(2, 7), activation=st.sampled_from(TRANSLATED), seed=st.integers(0, 99)
)
@settings(max_examples=12, deadline=None)
def test_what_numpy_comes_to_is_what_torch_does(loss, rows, columns, activation, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, rows, columns, generator=generator)
    weight = torch.randn(columns, columns, generator=generator)

    def gradient(x, weight, y):
        total = LOSSES[loss](ACTIVATIONS[activation]().eval()(x @ weight), y).sum()
        return [*torch.autograd.grad(total, [x, weight]), total]

    inputs = [x, weight, y]
    graph = trace(gradient, inputs, 2)
    arrays = [value.numpy() for value in inputs]
    with np.errstate(all="ignore"):
        found = NumpyProgram(graph, arrays).run(*arrays)
    expected = [value.detach() for value in gradient(x.requires_grad_(), weight.requires_grad_(), y)]
    assert_close(
        [torch.from_numpy(np.asarray(value)) for value in found], expected, rtol=1e-4, atol=1e-4, equal_nan=True
    )


def make_learner(loss, **spec):
    """A learner of one linear layer."""
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    spec = MLPNet(hid_layers=[], optim_spec={"name": "Adam", "lr": 0.1}, **spec)
    return net, Learner(loss, net, [ParameterGroup(net.parameters(), spec)])


def square(net, x):
    """A loss."""
    out = net(x)
    return out.square().mean(), {"out": out}


def after(learner, net, batches):
    """Return the metrics of some steps, and the weights that they lead to."""
    metrics = [{name: torch.as_tensor(x) for name, x in learner.step(batch).items()} for batch in batches]
    return metrics, {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Reinforce", {}),  # batches of any length
        ("SIL", {}),
        ("PPO", {"net": {"type": "outside_nets:Tower", "width": 8}}),  # what it looks at is not known
        ("PPO", {"net": {"type": "RecurrentNet", "cell_type": "GRU", "rnn_hidden_size": 8, "seq_len": 4}}),
        ("PPO", {"net": {"hid_layers": [129, 128]}}),
        ("PPO", {"meta": {"precision": "bfloat16"}}),
    ],
)
def test_what_does_not_suit_numpy_is_not_tried(name, keys):
    run = Run(make_spec(name, **keys))
    run.agent.use_numpy()
    assert not any(learner.in_numpy for learner in run.agent.algorithm.learners.values())


def test_layers_that_learn_in_training_mode_only_are_left_to_torch():
    run = trained(make_spec("CrossQ"), 60, by_numpy=True)
    assert {name: learner.in_numpy for name, learner in run.agent.algorithm.learners.items()}["critics"] is False


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_single_number_is_learned(optimizer):
    def loss(net, x):
        return (net.scale * x).square().mean(), {}

    ends = []
    for by_numpy in (False, True):
        net = nn.Module()
        net.scale = nn.Parameter(torch.tensor(2.0))
        spec = MLPNet(hid_layers=[], optim_spec={"name": optimizer, "lr": 0.1}, clip_grad_val=1.0)
        learner = Learner(loss, net, [ParameterGroup(net.parameters(), spec)])
        if by_numpy:
            learner.use_numpy()
        ends.append(after(learner, net, torch.ones(4, 2).split(1)))
        assert learner.in_numpy == by_numpy
    assert_close(*ends)


def test_no_number_is_told_of():
    net, learner = make_learner(square, clip_grad_val=1.0)
    learner.use_numpy()
    after(learner, net, torch.eye(3).split(1))
    assert math.isnan(learner.step(torch.full((1, 3), torch.nan))["grad_norm"])
    assert net.weight.isnan().all()


@pytest.mark.parametrize("limit", [None, 0.01, 100.0])
def test_batches_of_another_shape_have_a_program_of_their_own(limit):
    batches = [torch.randn(rows, 3) for rows in (2, 2, 5, 2, 5)]
    net, learner = make_learner(square, clip_grad_val=limit)
    plain = after(learner, net, batches)
    net, learner = make_learner(square, clip_grad_val=limit)
    learner.use_numpy()
    assert_close(after(learner, net, batches), plain)
    assert learner.in_numpy


def test_it_goes_on_from_a_loaded_state():
    net, learner = make_learner(square)
    learner.use_numpy()
    batches = torch.eye(3).split(1)
    _, weights = after(learner, net, batches)
    state = copy.deepcopy(learner.state_dict())
    ends = after(learner, net, batches)
    net.load_state_dict(weights)
    learner.load_state_dict(state)
    assert_close(after(learner, net, batches), ends, rtol=0, atol=0)
    assert learner.in_numpy


def test_it_goes_on_from_a_checkpoint(tmp_path):
    checkpoints, batches = Checkpoints(tmp_path, "run", keep=1), torch.randn(4, 2, 3)

    def both():
        torch.manual_seed(0)
        nets = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
        spec = MLPNet(hid_layers=[], optim_spec={"name": "Adam", "lr": 0.1}, clip_grad_val=0.1, **FALLING)
        learner = Learner(
            lambda nets, x: (nets[1](nets[0](x)).square().mean(), {}),
            nets,
            [ParameterGroup(net.parameters(), spec) for net in nets],
        )
        learner.use_numpy()
        return nets, learner

    nets, learner = both()
    after(learner, nets, batches)
    checkpoints.save(1, {"nets": nets.state_dict(), "learner": learner.state_dict()})
    ends = after(learner, nets, batches)
    nets, learner = both()
    after(learner, nets, batches[:1])
    _, state = checkpoints.load()
    nets.load_state_dict(state["nets"])
    learner.load_state_dict(state["learner"])
    assert_close(after(learner, nets, batches), ends, rtol=0, atol=0)
    assert learner.in_numpy


def test_two_learners_may_step_by_one_optimiser():
    ends = []
    for by_numpy in (False, True):
        net, one = make_learner(square)
        other = Learner(square, net, one.groups)
        for learner in (one, other) if by_numpy else ():
            learner.use_numpy()
        ends.append([after(learner, net, torch.eye(3).split(1)) for learner in (one, other, one)])
        assert one.groups[0].optimizer.state[net.weight]["step"] == 9
    assert_close(*ends)


def test_weights_may_lie_in_another_order():
    ends = []
    for by_numpy in (False, True):
        net = nn.Module()
        net.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
        spec = MLPNet(hid_layers=[], optim_spec={"name": "Adam", "lr": 0.1})
        loss = lambda net, x: ((x @ net.weight).square().mean(), {})  # noqa: E731
        learner = Learner(loss, net, [ParameterGroup(net.parameters(), spec)])
        if by_numpy:
            learner.use_numpy()
        ends.append(after(learner, net, torch.eye(3).split(1)))
    assert_close(*ends)


def test_nothing_of_what_was_seen_is_kept():
    net, learner = make_learner(square)
    learner.use_numpy()
    after(learner, net, torch.randn(2, 4096, 3))
    gc.collect()
    held = [x for x in gc.get_objects() if isinstance(x, torch.Tensor) and len(x.shape) == 2 and len(x) == 4096]
    assert not held


def test_it_goes_on_where_the_weights_have_moved():
    batches = torch.eye(3).split(1)
    ends = []
    for move in (False, True):
        net, learner = make_learner(square)
        learner.use_numpy()
        after(learner, net, batches)
        for parameter in net.parameters() if move else ():
            parameter.data = parameter.data.clone()
        ends.append(after(learner, net, batches))
    assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (lambda net, x: ((net(x) + torch.randn(1)).square().mean(), {}), "draws numbers"),
        (lambda net, x: (torch.special.erf(net(x)).sum(), {}), "erf"),
        (lambda net, x: (net(x).sum() * (2 if net(x).sum() > 0 else 1), {}), "hangs on a number"),
        (lambda net, x: ((seen(net(x)).square()).sum(), {}), "in place"),
        (lambda net, x: (net(x).sum() * SECRET, {}), "neither in the nets nor in the batch"),
        (lambda net, x: (net(x).sum() * sum(x[:, 0].tolist()), {}), "tolist"),
        (lambda net, x: (net(x).sum() * float(x.numpy().max()), {}), "numpy"),
    ],
)
def test_what_it_cannot_do_is_left_to_torch(loss, why, reasons):
    batches = [torch.randn(2, 3) for _ in range(4)]
    torch.manual_seed(1)
    net, learner = make_learner(loss)
    plain = after(learner, net, batches)
    net, learner = make_learner(loss)
    learner.use_numpy()
    assert_close(after(learner, net, batches), plain, rtol=0, atol=0)
    (reason,) = reasons
    assert why.lower() in reason.lower()


def seen(x):
    """Change what is looked at in another way."""
    first = x[:1]
    x.mul_(2.0)
    return x + first


SECRET = torch.tensor(3.0)
"""Nothing tells that it will not change."""


def wrong_product(left, right):
    """Multiply with a mistake."""
    return left @ right * 1.1


def test_a_program_that_comes_to_something_else_is_not_used(monkeypatch, reasons):
    monkeypatch.setitem(_TABLE, torch.ops.aten.mm.default, lambda program, _meta, *of: program.call(wrong_product, *of))
    net, learner = make_learner(square)
    learner.use_numpy()
    after(learner, net, torch.eye(3).split(1))
    assert not learner.in_numpy
    assert "other gradients" in reasons[0]
