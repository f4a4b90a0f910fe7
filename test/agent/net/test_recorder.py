"""Functions of tensors, written down as graphs."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.net.fallback import NotRecorded
from slm_lab.agent.net.recorder import Recorder, record


def step(weight, count, x):
    """Change tensors in place, one by one and several at once, also by way of views."""
    half = torch.tensor(0.25)
    half += half
    loss = (x @ weight).square().mean() * half
    (gradient,) = torch.autograd.grad(loss, [weight])
    torch._foreach_mul_([gradient], 2.0)
    with torch.no_grad():
        count.view(1, -1)[:, 0].add_(1)
        weight.sub_(gradient * count[0])
    first, second = weight.detach().split(1)
    return [loss, first + second, count * 2]


def test_a_graph_does_again_what_was_recorded_also_in_place():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3), torch.zeros(4), torch.randn(5, 2)]
    graph = record(step, inputs, 1)
    for _ in range(2):
        mine, theirs = ([x.clone() for x in inputs] for _ in range(2))
        found, expected = graph(*mine), step(theirs[0].requires_grad_(), *theirs[1:])
        assert_close(list(found), [x.detach() for x in expected])
        assert_close(mine, [x.detach() for x in theirs])
        inputs = mine


def test_empty_tensors_are_told_by_what_they_are():
    def function(x):
        empty = x[:0] * 1
        other = x[:0] * 2
        del other
        return [torch.cat([empty, x])]

    x = torch.ones(2, 3)
    assert_close(record(function, [x], 0)(x), (x,))


def test_a_tensor_that_lies_where_another_has_lain_is_not_taken_for_it():
    memory = np.ones(3, np.float32)
    recorder = Recorder([torch.from_numpy(memory)])
    with pytest.raises(NotRecorded):
        recorder.node_of(torch.from_numpy(memory))
