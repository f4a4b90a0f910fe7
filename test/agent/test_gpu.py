"""On a GPU, where there is one."""

import numpy as np
import pytest
import torch
from agents import Run, make_spec
from loguru import logger
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")


@pytest.mark.parametrize("name", ["PPO", "A2C", "DQN", "Rainbow", "SAC", "CrossQ", "TD3"])
def test_steps_captured_in_graphs_are_the_plain_ones(name):
    spec = make_spec(name, num_envs=2)
    plain, captured = Run(spec, device=GPU), Run(spec, device=GPU)
    captured.agent.compile()
    for run in (plain, captured):
        run.train(120)
    assert captured.events == plain.events
    assert all(learner._compiled.fast for learner in captured.agent.algorithm.learners.values())
    assert_close(captured.metrics, plain.metrics, rtol=1e-2, atol=1e-3)
    assert_close(captured.agent.nets_state(), plain.agent.nets_state(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["PPO", "A2C", "Reinforce"])
def test_a_rollout_reaches_it_whole(name):
    spec = make_spec(name, num_envs=2)
    memories = []
    for device in (None, GPU):
        run = Run(spec, device=device)
        while not run.agent.ready(run.frame):
            action = np.zeros(2, np.int64)
            step = run.env.step(action)
            run.agent.observe(run.obs, action, step)
            run.obs, run.frame = step.obs, run.frame + 2
        memories.append(run.agent.algorithm.memory.sample())
    for on_cpu, on_gpu in zip(*memories, strict=True):
        assert on_gpu.is_cuda
        assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["PPO", "DQN", "Rainbow", "SAC", "TD3"])
def test_acting_by_a_captured_net_is_the_plain_one_and_follows_the_weights(name):
    spec = make_spec(name, num_envs=2)
    plain, captured = Run(spec, device=GPU), Run(spec, device=GPU)
    for net in captured.agent._nets():
        net.capture()
    messages: list[str] = []
    handler = logger.add(lambda message: messages.append(str(message)), level="WARNING")
    for _ in range(2):
        for run in (plain, captured):
            run.train(60)
        actions = [run.agent.act(plain.obs, run.frame, explore=False) for run in (plain, captured)]
        assert_close(*actions, rtol=1e-3, atol=1e-4)
        assert_close(captured.agent.nets_state(), plain.agent.nets_state(), rtol=1e-2, atol=1e-3)
    logger.remove(handler)
    assert not messages
