from math import tanh

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hand import add, make, set_linear, zeros
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.algorithm.td3 import td3_critic_loss, td3_policy_loss
from slm_lab.spec import SpecError

TD3 = {"name": "TD3", "gamma": 0.5, "training_iter": 1, "training_start_step": 0}
MEMORY = {"name": "Replay", "batch_size": 4, "max_size": 100}
POLYAK = {"update_type": "polyak", "polyak_coef": 0.25}
BOX = Box(-1.0, 1.0, (1,), np.float32)
MSE = nn.MSELoss(reduction="none")
STILL = {"optim_spec": {"name": "SGD", "lr": 1e-30}}
SMOOTHING = {"target_noise": 0.2, "noise_clip": 0.5}


def td3(net=None, **keys):
    """Actions tanh(0.5), of the target policy tanh(1); Q1 = obs + 2 a, Q2 = 3 + obs - a, of the target one more."""
    algorithm = make({**TD3, **keys}, MEMORY, net={**POLYAK, **(net or {})}, action_space=BOX)
    nets = algorithm.nets
    set_linear(nets.policy.net, [0.0], [0.5])
    set_linear(nets.target_policy.net, [0.0], [1.0])
    for critics, more in ((nets.critics, 0.0), (nets.target_critics, 1.0)):
        for critic, action, bias in zip(critics.nets, (2.0, -1.0), (0.0, 3.0), strict=True):
            critic.net.heads[0].weight.data = torch.tensor([[1.0, action]])
            critic.net.heads[0].bias.data.fill_(bias + more)
    return algorithm


def fill(algorithm, count=8):
    for t in range(count):
        add(algorithm.memory, t / 10, np.zeros(1), 1.0, t / 10 + 0.1)
    return algorithm


@pytest.mark.parametrize(
    ("noise", "action"),
    [
        (0.0, tanh(1.0)),
        (-1.0, tanh(1.0) - 0.2),
        (-9.0, tanh(1.0) - 0.5),  # the noise is clipped
        (2.0, 1.0),  # and so is the action
    ],
)
@pytest.mark.parametrize("discount", [0.5, 0.0])
def test_loss_of_the_critics_by_hand(noise, action, discount):
    rows = [torch.tensor([[0.5]]), torch.tensor([[0.25]]), torch.tensor([2.0]), torch.tensor([discount])]
    batch = [*rows, torch.tensor([[1.0]]), torch.tensor([0.5]), torch.tensor([[noise]])]
    loss, metrics = td3_critic_loss(td3().nets, *batch, loss_fn=MSE, **SMOOTHING)
    target = 2 + discount * min(1 + 1 + 2 * action, 4 + 1 - action)
    q1, q2 = 0.5 + 2 * 0.25, 3 + 0.5 - 0.25
    assert loss.item() == pytest.approx(0.5 * ((q1 - target) ** 2 + (q2 - target) ** 2))
    assert metrics["error"].item() == pytest.approx((abs(q1 - target) + abs(q2 - target)) / 2)


def test_the_policy_follows_the_first_critic():
    loss, _ = td3_policy_loss(td3().nets, torch.tensor([[0.5], [1.5]]))
    assert loss.item() == pytest.approx(-(1.0 + 2 * tanh(0.5)))


def test_target_nets_follow_when_the_policy_learns():
    algorithm = fill(td3(net=STILL, training_iter=3))
    algorithm.update(1)
    assert algorithm.policy_learner.opt_steps == 1
    assert_close(algorithm.nets.target_policy.net.heads[0].bias.item(), 0.5 + 0.5 * 0.75)
    assert_close(algorithm.nets.target_critics.nets[0].net.heads[0].bias.item(), 0.75)
    algorithm.update(2)
    assert algorithm.policy_learner.opt_steps == 3
    assert_close(algorithm.nets.target_critics.nets[0].net.heads[0].bias.item(), 0.75**3)


def test_target_nets_begin_as_the_nets():
    nets = make(TD3, MEMORY, net=POLYAK, action_space=BOX).nets
    assert all(map(torch.equal, nets.policy.parameters(), nets.target_policy.parameters()))
    assert all(map(torch.equal, nets.critics.parameters(), nets.target_critics.parameters()))
    first, second = nets.critics.nets
    assert not torch.equal(first.net.heads[0].weight, second.net.heads[0].weight)


def test_exploration():
    algorithm = td3(training_start_step=100, exploration_noise=0.3)
    obs = zeros(20_000)
    random, noisy = algorithm.act(obs, 99), algorithm.act(obs, 100)
    assert random.dtype == noisy.dtype == np.float32
    assert random.shape == noisy.shape == (20_000, 1)
    assert np.quantile(random, 0.25) == pytest.approx(-0.5, abs=0.03)
    assert np.quantile(noisy, 0.5) == pytest.approx(tanh(0.5), abs=0.02)
    assert np.quantile(noisy, 0.1587) == pytest.approx(tanh(0.5) - 0.3, abs=0.02)  # one deviation below
    assert noisy.max() == 1.0
    assert algorithm.act(obs[:2], 0, explore=False) == pytest.approx(np.full((2, 1), tanh(0.5)))


@pytest.mark.parametrize("space", [Discrete(2), Box(-np.inf, np.inf, (1,), np.float32)])
def test_other_actions_are_an_error(space):
    with pytest.raises(SpecError, match="bounded continuous actions, which this algorithm needs"):
        make(TD3, MEMORY, net=POLYAK, action_space=space)
