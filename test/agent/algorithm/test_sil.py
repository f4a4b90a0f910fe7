from math import log

import numpy as np
import pytest
import torch
from hand import P, Q, add, make, set_policy
from torch.testing import assert_close

from slm_lab.agent.algorithm.sil import sil_loss

SIL = {"name": "SIL", "gamma": 0.5, "lam": 0.5, "training_frequency": 1, "training_iter": 3, "training_batch_iter": 2}
PPOSIL = {
    "name": "PPOSIL",
    "gamma": 0.5,
    "lam": 0.5,
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "time_horizon": 1,
    "minibatch_size": 1,
    "training_epoch": 1,
    "training_iter": 3,
    "training_batch_iter": 2,
}
BETA = {"name": "no_decay", "start_val": 0.0}
UNIFORM = {"name": "Replay", "batch_size": 2, "max_size": 20}
BY_GAIN = {"name": "PrioritizedReplay", "batch_size": 2, "max_size": 20, "alpha": 1.0, "beta_spec": BETA}
both = pytest.mark.parametrize("keys", [SIL, PPOSIL], ids=["SIL", "PPOSIL"])


def sil(keys=SIL, replay=UNIFORM, net=None, **changes):
    memory = {"name": "OnPolicyBatchReplay", "sil_replay": replay}
    algorithm = make({**keys, **changes}, memory, net=net)
    set_policy(algorithm)
    return algorithm


def held(algorithm):
    """(obs, action, return) of all past steps."""
    past = algorithm.memory.past
    batch = past.batch(np.flatnonzero(past.valid))
    return list(zip(batch.obs.flatten().tolist(), batch.action.tolist(), batch.reward.tolist(), strict=True))


def test_loss_by_hand():
    algorithm = sil()
    loss, metrics = sil_loss(
        algorithm.net,
        obs=torch.tensor([[1.0], [2.0]]),  # V = 1, 2
        action=torch.tensor([0, 1]),
        returns=torch.tensor([4.0, 1.0]),  # gains 3 and 0: what was worse than expected counts nothing
        weight=torch.tensor([0.5, 1.0]),
        policy_coef=2.0,
        value_coef=10.0,
    )
    policy_loss, value_loss = -0.5 * log(P) * 3 / 2, 0.5 * 9 / 2 / 2
    assert_close(metrics["policy_loss"].item(), policy_loss)
    assert_close(metrics["value_loss"].item(), value_loss)
    assert metrics["error"].tolist() == [3.0, 0.0]
    assert_close(loss.item(), 2 * policy_loss + 10 * value_loss)


def test_the_policy_loss_does_not_move_the_value():
    algorithm = sil()
    arguments = torch.ones(2, 1), torch.tensor([0, 1]), torch.full((2,), 5.0), torch.ones(2)
    loss, _ = sil_loss(algorithm.net, *arguments, policy_coef=1.0, value_coef=0.0)
    loss.backward()
    assert all(parameter.grad.abs().max() == 0 for parameter in algorithm.net.critic.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in algorithm.net.actor.parameters())


@both
def test_returns_run_along_the_episode_and_are_known_at_its_end(keys):
    algorithm = sil(keys, net={"optim_spec": {"name": "SGD", "lr": 1e-9}})
    steps = [
        (1.0, 0, 8.0, 2.0, {}),
        (2.0, 1, 0.0, 3.0, {}),
        (3.0, 0, 4.0, 5.0, {"terminated": True, "final_obs": 9.0}),
        (5.0, 1, 1.0, 7.0, {"truncated": True, "final_obs": 6.0}),  # V = 6 there
    ]
    first = [(1.0, 0, 9.0), (2.0, 1, 2.0), (3.0, 0, 4.0)]
    expected = [[], [], first, [*first, (5.0, 1, 4.0)]]
    for (obs, action, reward, next_obs, end), past in zip(steps, expected, strict=True):
        add(algorithm.memory, obs, action, reward, next_obs, **end)
        assert algorithm.ready(1)
        algorithm.update(1)
        assert held(algorithm) == past


@both
def test_the_past_is_used_as_often_as_asked_with_one_optimiser(keys):
    algorithm = sil(keys)
    for obs in (1.0, 2.0):
        add(algorithm.memory, obs, 1, 8.0, 3.0, terminated=True, final_obs=3.0)
        metrics = algorithm.update(1)
    # two updates on policy; from the past only the second time, when there are two steps for a batch
    assert algorithm.learners["net"].opt_steps == 2 * (1 + 1 + 3 * 2)  # of a policy net and a value net
    assert {"sil_policy_loss", "sil_value_loss", "sil_gain", "sil_loss", "loss"} <= metrics.keys()
    assert algorithm.learner.groups is algorithm.learners["net"].groups


def test_what_turned_out_well_is_done_again():
    algorithm = sil(policy_loss_coef=0.0, val_loss_coef=0.0)
    for action, reward in ((1, 9.0), (0, -9.0)):
        add(algorithm.memory, 1.0, action, reward, 1.0, terminated=True, final_obs=1.0)
        algorithm.update(1)
    probability = algorithm.net.policy(torch.ones(1, 1)).log_p.exp()[0, 1].item()
    assert probability > Q


def test_steps_are_drawn_by_their_gain():
    algorithm = sil(replay=BY_GAIN, net={"optim_spec": {"name": "SGD", "lr": 1e-9}})
    for obs, reward in ((1.0, 2.0), (1.0, 4.0), (5.0, 1.0)):  # gains 1, 3, 0
        add(algorithm.memory, obs, 0, reward, 1.0, terminated=True, final_obs=1.0)
        algorithm.update(1)
    for _ in range(20):
        algorithm.memory.past.update_priorities(*everything(algorithm))
        drawn = [algorithm.memory.past.sample(100).reward for _ in range(4)]
    share = np.unique(np.concatenate(drawn), return_counts=True)
    assert share[0].tolist() == [2.0, 4.0]
    assert share[1].tolist() == pytest.approx([100, 300], abs=4)


def everything(algorithm):
    """Index and gain of all past steps."""
    past = algorithm.memory.past
    batch = past.batch(np.flatnonzero(past.valid))
    gain = torch.from_numpy(batch.reward) - algorithm.net.value(torch.from_numpy(batch.obs))
    return batch.index, gain.clamp_min(0)


def test_an_interruption_drops_the_episodes_under_way():
    algorithm = sil(training_frequency=2)
    add(algorithm.memory, 1.0, 0, 100.0, 2.0)
    algorithm.memory.interrupt()
    for obs in (3.0, 4.0):
        assert not algorithm.ready(1)
        add(algorithm.memory, obs, 1, 1.0, 5.0, terminated=True, final_obs=5.0)
    algorithm.update(2)
    assert held(algorithm) == [(3.0, 1, 1.0), (4.0, 1, 1.0)]
