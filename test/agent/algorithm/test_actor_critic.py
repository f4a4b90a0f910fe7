from math import log

import pytest
import torch
from hand import ENTROPY, add, make, set_policy
from torch.testing import assert_close

MEMORY = {"name": "OnPolicyBatchReplay"}
LAM = {"lam": 0.5, "training_frequency": 2}
N_STEP = {"num_step_returns": 2}
PLAIN = {"training_frequency": 2}
RUNNING = [{}, {}]
TERMINATED = [{}, {"terminated": True, "final_obs": 5.0}]
TRUNCATED = [{}, {"truncated": True, "final_obs": 5.0}]
EARLY = [{"terminated": True, "final_obs": 5.0}, {}]
EARLY_CUT = [{"truncated": True, "final_obs": 5.0}, {}]


def a2c(keys, net=None, memory=MEMORY):
    algorithm = make({"name": "ActorCritic", "gamma": 0.5, **keys}, memory, net=net)
    set_policy(algorithm)
    return algorithm


def fill(algorithm, ends):
    """V = 1, 2, then 3; rewards 1, 0; actions 0, 1."""
    add(algorithm.memory, 1.0, 0, 1.0, 2.0, **ends[0])
    add(algorithm.memory, 2.0, 1, 0.0, 3.0, **ends[1])


@pytest.mark.parametrize(
    ("keys", "ends", "target"),
    [
        # delta = 1 + 0.5 * 2 - 1 = 1 and 0 + 0.5 * 3 - 2 = -0.5; A = 1 - 0.25 * 0.5 and -0.5; target = A + V
        (LAM, RUNNING, [1.875, 1.5]),
        (LAM, TERMINATED, [1.5, 0.0]),  # delta_1 = -2
        (LAM, TRUNCATED, [2.125, 2.5]),  # delta_1 = 0.5 * 5 - 2: V of the true last observation
        (LAM, EARLY, [1.0, 1.5]),  # delta_0 = 1 - 1, and nothing of A_1
        (LAM, EARLY_CUT, [3.5, 1.5]),  # delta_0 = 1 + 0.5 * 5 - 1, and nothing of A_1
        (N_STEP, RUNNING, [1.75, 1.5]),
        (N_STEP, TERMINATED, [1.0, 0.0]),
        (N_STEP, TRUNCATED, [2.25, 2.5]),
        (N_STEP, EARLY, [1.0, 1.5]),
        (N_STEP, EARLY_CUT, [3.5, 1.5]),
        (PLAIN, RUNNING, [1.0, 0.0]),
        (PLAIN, TRUNCATED, [1.0, 0.0]),
    ],
)
def test_targets_by_hand(keys, ends, target):
    algorithm = a2c(keys)
    fill(algorithm, ends)
    advantage, got = algorithm.advantage_and_target(algorithm.memory.sample())
    assert_close(got, torch.tensor(target).unsqueeze(1))
    assert_close(advantage, torch.tensor(target).unsqueeze(1) - torch.tensor([[1.0], [2.0]]))


@pytest.mark.parametrize(
    ("keys", "loss"),
    [  # advantages 0.875, -0.5 standardised: 1, -1; the value loss is (0.875^2 + 0.5^2) / 2
        ({}, -log(3) / 2 + 0.5078125),
        ({"val_loss_coef": 0.5}, -log(3) / 2 + 0.25390625),
        ({"policy_loss_coef": 2.0}, -log(3) + 0.5078125),
        ({"entropy_coef_spec": {"name": "no_decay", "start_val": 0.1}}, -log(3) / 2 + 0.5078125 - 0.1 * ENTROPY),
    ],
)
def test_loss_by_hand(keys, loss):
    algorithm = a2c({**LAM, **keys})
    fill(algorithm, RUNNING)
    expected = {"policy_loss": -log(3) / 2, "value_loss": 0.5078125, "entropy": ENTROPY, "loss": loss}
    assert_close(algorithm.update(2), expected, rtol=1e-5, atol=1e-6)


def test_advantages_as_they_are_by_hand():
    algorithm = a2c({**LAM, "normalize_advantages": None})
    fill(algorithm, RUNNING)
    policy_loss = -(0.875 * log(0.75) - 0.5 * log(0.25)) / 2
    assert_close(algorithm.update(2)["policy_loss"], policy_loss, rtol=1e-5, atol=1e-6)


def test_the_step_by_hand():
    net = {"actor_optim_spec": {"name": "SGD", "lr": 1.0}, "critic_optim_spec": {"name": "SGD", "lr": 0.1}}
    algorithm = a2c(LAM, net)
    fill(algorithm, RUNNING)
    algorithm.update(2)
    # policy: mean of A (onehot(a) - p) = ((1, 0) - (0, 1)) / 2
    assert_close(algorithm.net.actor.heads[0].bias.detach(), torch.tensor([log(3) + 0.5, -0.5]))
    # value: d/db mean (V - target)^2 = 2 (-0.875 + 0.5) / 2; d/dw = 2 (-0.875 * 1 + 0.5 * 2) / 2
    critic = algorithm.net.critic.heads[0]
    assert_close(critic.bias.detach(), torch.tensor([0.0375]))
    assert_close(critic.weight.detach(), torch.tensor([[1 - 0.0125]]))


def test_whole_episodes_one_after_another():
    algorithm = a2c({"lam": 0.5, "training_frequency": 2}, memory={"name": "OnPolicyReplay"})
    add(algorithm.memory, 1.0, 0, 1.0, 4.0, terminated=True, final_obs=5.0)
    assert not algorithm.ready(1)
    add(algorithm.memory, 4.0, 1, 0.0, 1.0, truncated=True, final_obs=6.0)
    assert algorithm.ready(2)
    _, target = algorithm.advantage_and_target(algorithm.memory.sample())
    assert target.flatten().tolist() == [1.0, 3.0]


def test_the_entropy_coefficient_follows_its_schedule():
    decay = {"name": "linear_decay", "start_val": 0.2, "end_val": 0.0, "end_step": 100}
    assert a2c({**LAM, "entropy_coef_spec": decay}).variables(50) == {"entropy_coef": 0.1}
    assert a2c(LAM).variables(50) == {"entropy_coef": 0.0}


def test_the_value_loss_in_units_of_the_deviation_of_all_targets():
    algorithm = a2c({**PLAIN, "normalize_v_targets": True})
    for reward in (20.0, 60.0):
        add(algorithm.memory, 1.0, 0, reward, 2.0, terminated=True, final_obs=5.0)
        add(algorithm.memory, 2.0, 1, 0.0, 3.0, terminated=True, final_obs=5.0)
        set_policy(algorithm)
        loss = algorithm.update(2)["value_loss"]
    variance = torch.tensor([20.0, 0.0, 60.0, 0.0]).var(correction=0).item()
    assert_close(loss, (59.0**2 + 2.0**2) / 2 / variance, rtol=1e-5, atol=0)
    assert set(algorithm.modules) == {"net", "value_scale"}
