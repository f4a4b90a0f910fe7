from math import exp, log, log1p, pi, tanh

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hand import ENTROPY, P, Q, add, make, set_linear, zeros
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.algorithm.sac import sac_critic_loss, soft_policy_loss
from slm_lab.env import Step
from slm_lab.spec import SpecError

SAC = {"name": "SoftActorCritic", "gamma": 0.5, "training_iter": 1, "training_start_step": 0, "fixed_alpha": 0.1}
MEMORY = {"name": "Replay", "batch_size": 4, "max_size": 100}
POLYAK = {"update_type": "polyak", "polyak_coef": 0.25}
BOX = Box(-1.0, 1.0, (1,), np.float32)
MSE = nn.MSELoss(reduction="none")
STILL = {"optim_spec": {"name": "SGD", "lr": 1e-30}}


def sac(action_space=None, net=None, memory=None, num_envs=1, **keys):
    net = {**POLYAK, **(net or {})}
    return make({**SAC, **keys}, {**MEMORY, **(memory or {})}, net=net, num_envs=num_envs, action_space=action_space)


def continuous(**keys):
    """u = 0.5 + 0.5 noise whatever is observed; Q1 = obs + 2 a, Q2 = 3 + obs - a, of the target one more each."""
    algorithm = sac(BOX, **keys)
    actor = algorithm.nets.policy.net.actor
    set_linear(actor, [0.0], [0.5])
    set_linear(actor, [0.0], [log(0.5)], head=1)
    for critics, more in ((algorithm.nets.critics, 0.0), (algorithm.nets.target_critics, 1.0)):
        for critic, action, bias in zip(critics.nets, (2.0, -1.0), (0.0, 3.0), strict=True):
            set_input(critic, [1.0, action], bias + more)
    return algorithm


@torch.no_grad()
def set_input(critic, weight, bias):
    """Q = weight · [obs, action] + bias."""
    critic.net.heads[0].weight[:] = torch.tensor([weight])
    critic.net.heads[0].bias[:] = bias


def discrete(**keys):
    """Probabilities P and Q; Q1 = (1, 4), Q2 = (2, 3); of the target 10 times as much."""
    algorithm = sac(**keys)
    set_linear(algorithm.nets.policy.net.actor, [0.0, 0.0], [log(3.0), 0.0])
    for critics, scale in ((algorithm.nets.critics, 1.0), (algorithm.nets.target_critics, 10.0)):
        for critic, values in zip(critics.nets, ([1.0, 4.0], [2.0, 3.0]), strict=True):
            set_linear(critic.net, [0.0, 0.0], [scale * value for value in values])
    return algorithm


A = tanh(1.0)  # the action where the noise is 1, and its log-probability
LOG_PI = -0.5 - log(0.5) - 0.5 * log(2 * pi) - log1p(-(A**2))


def row(obs, action, reward, discount, next_obs, noise, weight=1.0):
    as_rows = [torch.tensor([[obs]]), action, torch.tensor([reward]), torch.tensor([discount])]
    return [*as_rows, torch.tensor([[next_obs]]), torch.tensor([weight]), noise]


NOISE = torch.ones(1, 1)


@pytest.mark.parametrize(
    ("next_obs", "discount", "value"),
    [
        (1.0, 0.5, min(2 + 2 * A, 5 - A) - 0.1 * LOG_PI),
        (1.0, 0.0, 0.0),  # terminated
        (-3.0, 0.25, min(-2 + 2 * A, 1 - A) - 0.1 * LOG_PI),
    ],
)
def test_loss_of_the_critics_for_continuous_actions_by_hand(next_obs, discount, value):
    nets = continuous().nets
    batch = row(0.5, torch.tensor([[0.25]]), 2.0, discount, next_obs, NOISE)
    loss, metrics = sac_critic_loss(nets, *batch, loss_fn=MSE)
    target = 2.0 + discount * value
    q1, q2 = 0.5 + 2 * 0.25, 3 + 0.5 - 0.25
    assert loss.item() == pytest.approx((q1 - target) ** 2 + (q2 - target) ** 2)
    assert_close(metrics["q"].item(), (q1 + q2) / 2)
    assert metrics["error"].item() == pytest.approx((abs(q1 - target) + abs(q2 - target)) / 2)
    weighted, _ = sac_critic_loss(nets, *batch[:5], torch.tensor([0.5]), NOISE, loss_fn=MSE)
    assert_close(weighted, loss / 2)


def test_loss_of_the_policy_for_continuous_actions_by_hand():
    loss, metrics = soft_policy_loss(continuous().nets, torch.tensor([[0.5]]), NOISE, target_entropy=-1.0)
    expected = 0.1 * LOG_PI - min(0.5 + 2 * A, 3.5 - A)
    assert metrics["policy_loss"].item() == pytest.approx(expected)
    assert metrics["entropy"].item() == pytest.approx(-LOG_PI)
    assert loss.item() == pytest.approx(expected + log(0.1) * (-LOG_PI + 1))


def test_loss_of_the_critics_for_discrete_actions_is_the_exact_expectation():
    nets = discrete().nets
    batch = row(0.5, torch.tensor([1]), 2.0, 0.5, 1.0, torch.empty(1, 0))
    value = P * 15 + Q * 35 + 0.1 * ENTROPY  # of each action the mean of both critics
    target = 2 + 0.5 * value
    loss, _ = sac_critic_loss(nets, *batch, loss_fn=MSE)
    assert loss.item() == pytest.approx((4 - target) ** 2 + (3 - target) ** 2)


def test_loss_of_the_policy_for_discrete_actions_is_the_exact_expectation():
    loss, metrics = soft_policy_loss(discrete().nets, torch.zeros(1, 1), torch.empty(1, 0), target_entropy=0.25)
    expected = -0.1 * ENTROPY - (P * 1.5 + Q * 3.5)
    assert_close(metrics["policy_loss"].item(), expected)
    assert_close(metrics["entropy"].item(), ENTROPY)
    assert_close(loss.item(), expected + log(0.1) * (ENTROPY - 0.25))


def test_loss_by_gumbel_softmax_takes_a_one_hot_sample_and_the_exact_entropy():
    algorithm = sac(action_pdtype="GumbelSoftmax")
    set_linear(algorithm.nets.policy.net.actor, [0.0, 0.0], [log(3.0), 0.0])
    for critics, scale in ((algorithm.nets.critics, 1.0), (algorithm.nets.target_critics, 10.0)):
        for critic, values in zip(critics.nets, ([1.0, 4.0], [2.0, 3.0]), strict=True):
            set_input(critic, [0.0, *(scale * value for value in values)], 0.0)
    for noise, lower in ((torch.zeros(1, 2), 1.0), (torch.tensor([[0.0, 2.0]]), 3.0)):  # log 3 < 2
        batch = row(0.5, torch.tensor([1]), 2.0, 0.5, 1.0, noise)
        target = 2 + 0.5 * (10 * lower + 0.1 * ENTROPY)
        loss, _ = sac_critic_loss(algorithm.nets, *batch, loss_fn=MSE)
        assert loss.item() == pytest.approx((4 - target) ** 2 + (3 - target) ** 2)
        _, metrics = soft_policy_loss(algorithm.nets, torch.zeros(1, 1), noise, target_entropy=0.0)
        assert_close(metrics["policy_loss"].item(), -0.1 * ENTROPY - lower)


def fill(algorithm, count=8, action=0):
    for t in range(count):
        add(algorithm.memory, t / 10, action, 1.0, t / 10 + 0.1)
    return algorithm


@pytest.mark.parametrize(
    ("target_entropy", "rises"),
    [(ENTROPY + 0.1, True), (ENTROPY - 0.1, False)],
)
def test_the_temperature_rises_where_there_is_too_little_entropy(target_entropy, rises):
    algorithm = fill(discrete(fixed_alpha=None, alpha_lr=0.01, target_entropy=target_entropy, net=STILL))
    algorithm.update(1)
    assert_close(algorithm.nets.temperature.log_alpha.item(), 0.01 if rises else -0.01)


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        ({}, 0.6 * log(2)),
        ({"target_entropy_ratio": 0.98}, 0.98 * log(2)),
        ({"target_entropy": 0.3}, 0.3),
        ({"action_pdtype": "GumbelSoftmax"}, 0.6 * log(2)),
    ],
)
def test_target_entropy(keys, target):
    assert sac(**keys).nets.target_entropy == pytest.approx(target)
    assert sac(Box(-1.0, 1.0, (3,), np.float32)).nets.target_entropy == -3.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"target_entropy_ratio": 0.5},
            r"target_entropy_ratio: only for discrete actions, .*; give target_entropy, or",
        ),
        ({"action_pdtype": "GumbelSoftmax"}, r"action_pdtype: GumbelSoftmax is for discrete actions, .*; use Normal"),
    ],
)
def test_keys_of_discrete_actions_do_not_suit_continuous_ones(keys, message):
    with pytest.raises(SpecError, match=message):
        sac(BOX, **keys)


def test_the_temperature_stays_within_its_bounds():
    bounds = {"log_alpha_min": -0.02, "log_alpha_max": 0.015}
    for target, bound in ((-100.0, -0.02), (100.0, 0.015)):
        algorithm = fill(discrete(fixed_alpha=None, alpha_lr=0.01, target_entropy=target, net=STILL, **bounds))
        for frame in range(1, 4):
            algorithm.update(frame)
        assert_close(algorithm.nets.temperature.log_alpha.item(), bound)


@pytest.mark.parametrize("alpha", [0.1, 1e-4, 20.0])  # the bounds are those of a learned one
def test_a_fixed_temperature_stays_and_takes_no_optimiser_step(alpha):
    algorithm = fill(discrete(fixed_alpha=alpha))
    assert algorithm.update(1)["alpha"] == pytest.approx(alpha)
    assert_close(algorithm.nets.temperature().item(), alpha)
    assert algorithm.policy_learner.opt_steps == 1


def weights(module):
    return [parameter.clone() for parameter in module.parameters()]


def test_each_step_trains_its_own_nets():
    algorithm = fill(continuous(fixed_alpha=None, net={"optim_spec": {"name": "SGD", "lr": 0.01}}), action=np.zeros(1))
    nets, batch = algorithm.nets, algorithm.memory.sample()
    before = weights(nets.policy), weights(nets.critics), weights(nets.temperature)
    algorithm.policy_learner.step(batch.obs, torch.ones(4, 1))
    assert not any(map(torch.equal, before[0], weights(nets.policy)))
    assert all(map(torch.equal, before[1], weights(nets.critics)))
    assert not torch.equal(before[2][0], nets.temperature.log_alpha)
    before = weights(nets.policy), weights(nets.critics), weights(nets.temperature)
    algorithm.critic_learner.step(*batch[:-1], torch.ones(4, 1))
    assert all(map(torch.equal, before[0], weights(nets.policy)))
    assert not any(map(torch.equal, before[1], weights(nets.critics)))
    assert torch.equal(before[2][0], nets.temperature.log_alpha)


def test_target_critics_begin_as_the_critics_and_follow_after_every_step():
    algorithm = fill(sac(net=STILL, training_iter=3))
    nets = algorithm.nets
    assert all(map(torch.equal, nets.critics.parameters(), nets.target_critics.parameters()))
    assert not any(parameter.requires_grad for parameter in nets.target_critics.parameters())
    for critic in nets.target_critics.nets:
        critic.net.heads[0].bias.data += 8.0
    algorithm.update(1)
    for old, new in zip(nets.target_critics.nets, nets.critics.nets, strict=True):
        assert_close(old.net.heads[0].bias - new.net.heads[0].bias, torch.full((2,), 8 * 0.75**3))


@pytest.mark.parametrize(("delay", "steps"), [(1, 6), (2, 3), (4, 1)])
def test_the_policy_waits_for_the_critics(delay, steps):
    algorithm = fill(sac(net=STILL, training_iter=3, policy_delay=delay))
    metrics = [algorithm.update(frame) for frame in (1, 2)]
    assert algorithm.critic_learner.opt_steps == 6
    assert algorithm.policy_learner.opt_steps == steps
    if delay == 4:
        assert "entropy" not in metrics[0]
        assert "entropy" in metrics[1]


def test_by_default_one_gradient_step_for_each_environment():
    algorithm = sac(training_iter=None, num_envs=3)
    flags = np.zeros(3, bool)
    obs = np.zeros((3, 1), np.float32)
    algorithm.memory.add(obs, np.zeros(3, np.int64), Step(obs, np.ones(3, np.float32), flags, flags, obs))
    algorithm.update(3)
    assert algorithm.critic_learner.opt_steps == 3


def test_actions_are_random_before_the_first_event_and_the_policys_after():
    algorithm = continuous(training_start_step=100)
    obs = zeros(20_000)
    random, sampled = algorithm.act(obs, 99), algorithm.act(obs, 100)
    assert random.shape == sampled.shape == (20_000, 1)
    for quantile, at in ((0.25, -0.5), (0.5, 0.0), (0.75, 0.5)):
        assert np.quantile(random, quantile) == pytest.approx(at, abs=0.03)
    assert random.dtype == sampled.dtype == np.float32
    assert np.quantile(sampled, 0.5) == pytest.approx(tanh(0.5), abs=0.02)
    assert np.quantile(sampled, 0.8413) == pytest.approx(tanh(1.0), abs=0.02)  # one deviation above
    assert algorithm.act(obs[:2], 0, explore=False) == pytest.approx(np.full((2, 1), tanh(0.5)))
    discrete_ones = discrete(training_start_step=100)
    assert discrete_ones.act(obs, 99).mean() == pytest.approx(0.5, abs=0.02)
    assert discrete_ones.act(obs, 100).mean() == pytest.approx(Q, abs=0.02)
    assert discrete_ones.act(obs[:2], 0, explore=False).tolist() == [0, 0]


def test_priorities_follow_the_errors():
    prioritized = {"name": "PrioritizedReplay", "alpha": 1.0, "epsilon": 1e-6}
    algorithm = sac(net=STILL, memory={**prioritized, "beta_spec": {"name": "no_decay", "start_val": 0.5}})
    add(algorithm.memory, 0.0, 0, 1.0, 1.0, terminated=True, final_obs=1.0)
    add(algorithm.memory, 1.0, 0, 5.0, 1.0, terminated=True, final_obs=1.0)
    for critic in algorithm.nets.critics.nets:
        set_linear(critic.net, [0.0, 0.0], [0.0, 0.0])
    for frame in range(1, 9):
        algorithm.update(frame)
    drawn = np.concatenate([algorithm.memory.sample(frame=1).reward for _ in range(500)])
    assert (drawn == 5.0).mean() == pytest.approx(5 / 6, abs=0.03)


def test_actions_it_cannot_choose_are_an_error():
    for space in (MultiDiscrete([2, 2]), Box(-np.inf, np.inf, (1,), np.float32), Box(-1.0, 1.0, (2, 2), np.float32)):
        with pytest.raises(SpecError, match=r"env\.name|agent\.algorithm\.name"):
            sac(space)
    with pytest.raises(SpecError, match=r"agent\.algorithm\.action_pdtype: 'Normal' does not suit discrete actions"):
        sac(Discrete(2), action_pdtype="Normal")


def test_alpha_is_the_exponential():
    temperature = sac(fixed_alpha=0.3).nets.temperature
    assert_close(temperature().item(), exp(log(0.3)))
    assert not temperature().requires_grad
