"""The loss and its gradient as one graph."""

import pytest
import torch
from agents import Run, make_spec
from torch.testing import assert_close

from slm_lab.agent.net.learner import differentiate, trace_gradients


def trained(spec, wrap):
    run = Run(spec)
    for learner in run.agent.algorithm.learners.values():
        learner._differentiate = wrap(differentiate)
    run.train(120)
    return run.metrics[:2]


@pytest.mark.parametrize("name", ["PPO", "Rainbow", "SAC", "CrossQ"])
def test_a_compiled_step_is_the_plain_one(name):
    torch.compiler.reset()
    trace_gradients()
    spec = make_spec(name)
    assert_close(
        trained(spec, lambda function: torch.compile(function, backend="aot_eager", fullgraph=True)),
        trained(spec, lambda function: function),
        rtol=1e-3,
        atol=1e-5,
    )
