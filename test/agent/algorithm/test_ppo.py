from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hand import ENTROPY, P, Q, add, make, set_policy
from torch.testing import assert_close

from slm_lab.agent.algorithm.loss import make_loss
from slm_lab.agent.algorithm.ppo import ppo_loss
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.env import Step
from slm_lab.spec import AgentSpec
from slm_lab.spec.net import ConvNet

PPO = {
    "name": "PPO",
    "gamma": 0.5,
    "lam": 0.5,
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "time_horizon": 2,
    "minibatch_size": 2,
    "training_epoch": 1,
}
MEMORY = {"name": "OnPolicyBatchReplay"}


def ppo(net=None, num_envs=1, **keys):
    algorithm = make({**PPO, **keys}, MEMORY, net=net, num_envs=num_envs)
    set_policy(algorithm)
    return algorithm


def fill(algorithm, **end):
    """V = 1, 2, then 3; rewards 1, 0; actions 0, 1: advantages 0.875, -0.5."""
    add(algorithm.memory, 1.0, 0, 1.0, 2.0)
    add(algorithm.memory, 2.0, 1, 0.0, 3.0, **end)


@pytest.mark.parametrize(
    ("clip_eps", "policy_loss"),
    [  # ratios 1.5 and 0.5, advantages 1 and -1
        (0.6, -(1.5 - 0.5) / 2),
        (0.2, -(1.2 - 0.8) / 2),  # clipped, both
        (0.5, -(1.5 - 0.5) / 2),
        (0.0, 0.0),
    ],
)
@pytest.mark.parametrize(
    ("clip_value", "value_losses"),
    [
        (False, [1.0, 4.0]),  # V = 1, 2; targets 2, 0
        # old values 0, 1.5: clipped to clip_eps and 1.5 + clip_eps, where that is farther from the target
        (True, {0.6: [1.4**2, 4.0], 0.2: [1.8**2, 4.0], 0.5: [1.5**2, 4.0], 0.0: [2.0**2, 4.0]}),
    ],
)
def test_loss_by_hand(clip_eps, policy_loss, clip_value, value_losses):
    net = ppo().net
    first, second = value_losses[clip_eps] if clip_value else value_losses
    loss, metrics = ppo_loss(
        net,
        obs=torch.tensor([[1.0], [2.0]]),
        action=torch.tensor([0, 1]),
        old_log_prob=torch.tensor([log(P / 1.5), log(Q / 0.5)]),
        advantage=torch.tensor([7.0, 3.0]),  # standardised: 1, -1
        target=torch.tensor([2.0, 0.0]),
        old_value=torch.tensor([0.0, 1.5]),
        clip_eps=torch.tensor(clip_eps),
        entropy_coef=torch.tensor(0.1),
        value_scale=torch.tensor(1.0),
        value_loss_fn=make_loss({"name": "MSELoss"}),
        val_loss_coef=0.5,
        clip_value=clip_value,
        standardize_advantage=True,
    )
    value_loss = (first + second) / 2
    assert_close(metrics["policy_loss"].item(), policy_loss, rtol=1e-5, atol=1e-6)
    assert_close(metrics["value_loss"].item(), value_loss, rtol=1e-5, atol=1e-6)
    assert_close(metrics["approx_kl"].item(), ((0.5 - log(1.5)) + (-0.5 - log(0.5))) / 2, rtol=1e-5, atol=1e-6)
    assert_close(loss.item(), policy_loss + 0.5 * value_loss - 0.1 * ENTROPY, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("end", "value_loss"),
    [  # the targets are those of ActorCritic: advantage + V
        ({}, (0.875**2 + 0.5**2) / 2),
        ({"terminated": True, "final_obs": 5.0}, (0.5**2 + 2.0**2) / 2),
        ({"truncated": True, "final_obs": 5.0}, (1.125**2 + 0.5**2) / 2),
    ],
)
def test_the_first_epoch_by_hand(end, value_loss):
    algorithm = ppo(val_loss_coef=2.0, entropy_coef_spec={"name": "no_decay", "start_val": 0.1})
    fill(algorithm, **end)
    metrics = algorithm.update(2)
    expected = {"policy_loss": 0.0, "value_loss": value_loss, "entropy": ENTROPY, "approx_kl": 0.0}  # ratio 1
    assert_close(metrics, expected | {"loss": 2 * value_loss - 0.1 * ENTROPY}, rtol=1e-5, atol=1e-6)


def test_images_are_learned_from_where_they_lie_in_the_rollout():
    algorithm, space = ppo(), Box(0, 255, (3, 8, 8), np.uint8)
    net = ConvNet(conv_hid_layers=[[4, 4, 2]], shared=True)
    algorithm.net = ActorCritic(net, space, Discrete(2))
    setting = replace(algorithm.setting, obs_space=space, num_envs=2)
    algorithm.memory = setting.memory(AgentSpec(algorithm=PPO, memory=MEMORY, net=net), 2)
    seen = np.random.default_rng(0).integers(256, size=(3, 2, 3, 8, 8), dtype=np.uint8)
    none = np.zeros(2, np.float32)
    for t in range(2):
        algorithm.memory.add(seen[t], none, Step(seen[t + 1], none, none > 0, none > 0, seen[t + 1]))
    rows = algorithm.memory.state_dict()["obs"]
    obs, *_ = algorithm.prepare(algorithm.memory.sample())
    assert torch.equal(obs, torch.from_numpy(seen[:2]).flatten(0, 1))
    assert algorithm.net.net.arranged(obs).data_ptr() == obs.data_ptr() == rows.data_ptr()  # and so in no other layout


def policy_after(epochs, clip_eps):
    algorithm = ppo(training_epoch=epochs, val_loss_coef=0.0, clip_eps_spec={"name": "no_decay", "start_val": clip_eps})
    fill(algorithm)
    algorithm.update(2)
    return algorithm.net.actor.heads[0].bias.tolist()


def test_the_clip_stops_the_second_epoch_where_the_first_went_far_enough():
    # the first step moves the logits by (1/2, -1/2) and more by the weights: both ratios leave 1 ± 0.05
    assert policy_after(2, clip_eps=0.05) == policy_after(1, clip_eps=0.05)
    assert policy_after(2, clip_eps=5.0) != policy_after(1, clip_eps=5.0)
    assert_close(policy_after(1, clip_eps=0.05), [log(3) + 0.5, -0.5])


def test_every_transition_is_used_once_per_epoch():
    algorithm = ppo(time_horizon=6, minibatch_size=2, training_epoch=2)
    loss, seen = algorithm.learner.loss, []

    def watched(net, obs, *rest):
        seen.extend(obs.flatten().tolist())
        assert len(obs) == 2
        return loss(net, obs, *rest)

    algorithm.learner.loss = watched
    for t in range(6):
        assert not algorithm.ready(t)
        add(algorithm.memory, float(t), 0, 0.0, t + 1.0)
    assert algorithm.ready(6)
    algorithm.update(6)
    assert algorithm.learner.opt_steps == 2 * 2 * 3  # a policy net and a value net, epochs, minibatches
    first, second = seen[:6], seen[6:]
    assert sorted(first) == sorted(second) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert first != second  # shuffled anew


def test_variables_follow_their_schedules():
    decay = {"name": "linear_decay", "start_val": 0.2, "end_val": 0.0, "end_step": 100}
    algorithm = ppo(clip_eps_spec=decay)
    assert algorithm.variables(50) == {"entropy_coef": 0.0, "clip_eps": 0.1}
    assert ppo(entropy_coef_spec=decay).variables(50) == {"entropy_coef": 0.1, "clip_eps": 0.2}


def test_the_clip_of_the_frame_counts():
    decay = {"name": "linear_decay", "start_val": 5.0, "end_val": 0.05, "end_step": 100}
    after = []
    for frame in (0, 100):
        algorithm = ppo(clip_eps_spec=decay, training_epoch=2, val_loss_coef=0.0)
        fill(algorithm)
        algorithm.update(frame)
        after.append(algorithm.net.actor.heads[0].bias.tolist())
    assert after == [policy_after(2, clip_eps=5.0), policy_after(2, clip_eps=0.05)]


def test_the_rate_falls_once_per_rollout():
    scheduler = {"name": "StepLR", "step_size": 1, "gamma": 0.5}
    algorithm = ppo(net={"lr_scheduler_spec": scheduler}, training_epoch=3)
    fill(algorithm)
    algorithm.update(2)
    assert algorithm.learner.lr == 0.5


def test_the_value_loss_in_units_of_the_deviation():
    net = ppo().net
    _, metrics = ppo_loss(
        net,
        obs=torch.tensor([[10.0], [20.0]]),
        action=torch.tensor([0, 1]),
        old_log_prob=torch.tensor([log(P / 1.5), log(Q / 0.5)]),
        advantage=torch.tensor([3.0, 1.0]),
        target=torch.tensor([20.0, 0.0]),
        old_value=torch.tensor([0.0, 15.0]),
        clip_eps=torch.tensor(0.2),
        entropy_coef=torch.tensor(0.0),
        value_scale=torch.tensor(10.0),
        value_loss_fn=make_loss({"name": "MSELoss"}),
        val_loss_coef=1.0,
        clip_value=True,
        standardize_advantage=False,
    )
    assert_close(metrics["value_loss"].item(), (1.8**2 + 2.0**2) / 2)  # as by hand above, for a tenth of everything
    assert_close(metrics["policy_loss"].item(), -(1.2 * 3.0 + 0.5 * 1.0) / 2)  # the advantages as they are


def test_the_running_deviation_of_the_targets_is_of_all_rollouts():
    algorithm = ppo(normalize_v_targets=True)
    for reward in (20.0, 60.0):
        add(algorithm.memory, 1.0, 0, reward, 2.0, terminated=True, final_obs=2.0)
        add(algorithm.memory, 2.0, 1, 0.0, 3.0, terminated=True, final_obs=3.0)
        *_, target, _, scale = algorithm.prepare(algorithm.memory.sample())
        assert target.tolist() == [reward, 0.0]
    assert_close(scale.item(), torch.tensor([20.0, 0.0, 60.0, 0.0]).std(correction=0).item())
    assert set(algorithm.modules) == {"net", "value_scale"}


def test_advantages_by_percentiles_of_the_rollout():
    algorithm = ppo(normalize_advantages="percentile")
    add(algorithm.memory, 1.0, 0, 41.0, 2.0, terminated=True, final_obs=2.0)
    add(algorithm.memory, 2.0, 1, 2.0, 3.0, terminated=True, final_obs=3.0)
    _, _, _, advantage, _, _, _ = algorithm.prepare(algorithm.memory.sample())
    assert_close(advantage, torch.tensor([40.0, 0.0]) / 36.0)  # of 0 and 40: p5 = 2, p95 = 38
    assert set(algorithm.modules) == {"net", "advantage_scale"}


def test_symlog_values_mean_what_plain_ones_do():
    algorithm = ppo(symlog=True)
    add(algorithm.memory, log(3.0), 0, 1.0, log(7.0))  # V = 2
    add(algorithm.memory, log(7.0), 1, 0.0, 0.0, truncated=True, final_obs=-log(3.0))  # V = 6, then -2
    _, _, _, advantage, target, output, _ = algorithm.prepare(algorithm.memory.sample())
    # delta_1 = 0.5 * -2 - 6 = -7; delta_0 = 1 + 0.5 * 6 - 2 = 2, A_0 = 2 + 0.25 * -7
    assert_close(advantage, torch.tensor([0.25, -7.0]))
    assert_close(target, torch.tensor([log(3.25), -log(2.0)]))
    assert_close(output, torch.tensor([log(3.0), log(7.0)]))


@pytest.mark.parametrize(("target_kl", "epochs"), [(None, 5), (1e-9, 2), (1e9, 5)])
def test_epochs_end_where_the_policy_has_gone_too_far(target_kl, epochs):
    algorithm = ppo(training_epoch=5, target_kl=target_kl)  # the first epoch is one step, of the old policy: KL 0
    fill(algorithm)
    algorithm.update(2)
    assert algorithm.learner.opt_steps == 2 * epochs
