from math import log, sqrt

import pytest
import torch
from hand import ENTROPY, P, Q, add, make, set_policy
from torch.testing import assert_close

ALGORITHM = {"name": "Reinforce", "gamma": 0.5, "training_frequency": 1}
EPISODES, STEPS = {"name": "OnPolicyReplay"}, {"name": "OnPolicyBatchReplay"}


def one_episode(algorithm, truncated=False):
    """Rewards 0 and 2 for actions 0 and 1: the returns are 1 and 2."""
    add(algorithm.memory, 5.0, 0, 0.0, 5.0)
    add(algorithm.memory, 5.0, 1, 2.0, 7.0, terminated=not truncated, truncated=truncated, final_obs=9.0)


@pytest.mark.parametrize("truncated", [False, True])  # there is no value to go on from: both are the end
@pytest.mark.parametrize(
    ("keys", "loss"),
    [  # log-probabilities log P and log Q
        ({}, -(-log(P) + log(Q)) / 2),  # returns 1, 2 standardised: -1, 1
        ({"center_return": False}, -(1 * log(P) + 2 * log(Q)) / 2 / sqrt(2.5)),
        ({"policy_loss_coef": 3.0}, 3 * log(3) / 2),
        ({"entropy_coef_spec": {"name": "no_decay", "start_val": 0.1}}, log(3) / 2 - 0.1 * ENTROPY),
    ],
)
def test_loss_by_hand(keys, loss, truncated):
    reinforce = make({**ALGORITHM, **keys}, EPISODES)
    set_policy(reinforce)
    one_episode(reinforce, truncated)
    assert reinforce.ready(2)
    metrics = reinforce.update(2)
    assert_close(metrics, {"entropy": ENTROPY, "loss": loss}, rtol=1e-5, atol=1e-6)
    assert not reinforce.ready(2)


def test_the_step_by_hand():
    reinforce = make(ALGORITHM, EPISODES)
    set_policy(reinforce)
    one_episode(reinforce)
    reinforce.update(2)
    # d log p(a) / d logits = onehot(a) - (P, Q); weights -1, 1: the sum is (-1, 1), the mean (-1/2, 1/2); lr 1
    head = reinforce.net.actor.heads[0]
    assert_close(head.bias.detach(), torch.tensor([log(3) - 0.5, 0.5]))
    assert_close(head.weight.detach(), torch.tensor([[-2.5], [2.5]]))  # times obs 5


def test_returns_do_not_leak_from_one_episode_into_the_one_before():
    reinforce = make({**ALGORITHM, "training_frequency": 2}, EPISODES)
    set_policy(reinforce)
    add(reinforce.memory, 5.0, 0, 1.0, 5.0, terminated=True, final_obs=5.0)
    add(reinforce.memory, 5.0, 1, 3.0, 5.0, terminated=True, final_obs=5.0)
    # returns 1 and 3: weights -1, 1
    assert_close(reinforce.update(2)["loss"], log(3) / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("center", "loss"),
    [(True, 0.0), (False, -log(P))],  # a single return is its own mean, and its own root mean square
)
def test_an_episode_of_one_step(center, loss):
    reinforce = make({**ALGORITHM, "center_return": center}, EPISODES)
    set_policy(reinforce)
    add(reinforce.memory, 5.0, 0, 4.0, 5.0, terminated=True, final_obs=5.0)
    assert_close(reinforce.update(1)["loss"], loss, rtol=1e-5, atol=1e-6)


def test_a_batch_of_steps_counts_rewards_up_to_its_end():
    reinforce = make({**ALGORITHM, "training_frequency": 2}, STEPS)
    set_policy(reinforce)
    add(reinforce.memory, 5.0, 0, 0.0, 5.0)
    assert not reinforce.ready(1)
    add(reinforce.memory, 5.0, 1, 2.0, 5.0)
    assert_close(reinforce.update(2)["loss"], log(3) / 2, rtol=1e-5, atol=0)


def test_the_entropy_coefficient_follows_its_schedule():
    decay = {"name": "linear_decay", "start_val": 0.2, "end_val": 0.0, "end_step": 100}
    reinforce = make({**ALGORITHM, "entropy_coef_spec": decay}, EPISODES)
    assert [reinforce.variables(frame)["entropy_coef"] for frame in (0, 50, 100)] == [0.2, 0.1, 0.0]
    set_policy(reinforce)
    one_episode(reinforce)
    assert_close(reinforce.update(50)["loss"], log(3) / 2 - 0.1 * ENTROPY, rtol=1e-5, atol=0)


def test_the_policys_own_optimiser_counts():
    reinforce = make(ALGORITHM, EPISODES, net={"actor_optim_spec": {"name": "SGD", "lr": 0.25}})
    assert reinforce.learner.lr == 0.25
