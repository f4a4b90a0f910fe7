import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hand import add, make

from slm_lab.agent.algorithm.base import actor_critic_groups, mean_metrics, values_and_log_probs
from slm_lab.agent.memory import RolloutBatch
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.spec.net import MLPNet

OBS, ACTIONS = Box(-1.0, 1.0, (3,), np.float32), Discrete(2)


def net_and_spec(**keys):
    torch.manual_seed(0)
    spec = MLPNet(**{"hid_layers": [4], "optim_spec": {"name": "SGD", "lr": 0.1}, **keys})
    return ActorCritic(spec, OBS, ACTIONS), spec


def test_a_shared_net_is_one_group():
    net, spec = net_and_spec(shared=True)
    (group,) = actor_critic_groups(net, spec)
    assert {id(p) for p in group.parameters} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize(
    ("use_same_optim", "rates", "clips"), [(False, [0.2, 0.3], [1.0, 5.0]), (True, [0.2, 0.2], [1.0, 1.0])]
)
def test_separate_nets_are_two_groups_by_the_spec_of_their_role(use_same_optim, rates, clips):
    net, spec = net_and_spec(
        use_same_optim=use_same_optim,
        actor_optim_spec={"name": "SGD", "lr": 0.2},
        critic_optim_spec={"name": "SGD", "lr": 0.3},
        actor_clip_grad_val=1.0,
        critic_clip_grad_val=5.0,
    )
    groups = actor_critic_groups(net, spec)
    assert [group.optimizer.param_groups[0]["lr"] for group in groups] == rates
    assert [group.clip for group in groups] == clips
    assert [{id(p) for p in group.parameters} for group in groups] == [
        {id(p) for p in net.actor.parameters()},
        {id(p) for p in net.critic.parameters()},
    ]


def test_metrics_are_averaged_over_the_steps():
    steps = [{"loss": torch.tensor(1.0), "q": torch.tensor(4)}, {"loss": torch.tensor(2.0), "q": torch.tensor(6)}]
    assert mean_metrics(steps) == {"loss": 1.5, "q": 5.0}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("what", "at_once"), [("ROWS_AT_ONCE", 50), ("NUMBERS_AT_ONCE", 3 * 50)])
def test_a_rollout_is_evaluated_step_by_step_and_part_by_part(shared, what, at_once, monkeypatch):
    monkeypatch.setattr(f"slm_lab.agent.algorithm.base.{what}", at_once)
    net, _ = net_and_spec(shared=shared)
    steps, envs, rows, evaluate = 28, 2, [], net.policy_value
    monkeypatch.setattr(net, "policy_value", lambda obs: rows.append(len(obs)) or evaluate(obs))
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(steps, envs, 3, generator=generator)
    action = torch.randint(2, (steps, envs), generator=generator)
    last_obs, final_obs = torch.randn(envs, 3, generator=generator), torch.randn(1, 3, generator=generator)
    none = torch.zeros(steps, envs, dtype=torch.bool)
    ended = torch.tensor([5 * envs + 1])
    value, next_value, log_prob = values_and_log_probs(
        net, RolloutBatch(obs, action, none.float(), none, none, last_obs, ended, final_obs)
    )
    assert rows == [50, 6]
    for t, n in ((0, 0), (5, 1), (steps - 2, 1), (steps - 1, 0)):
        policy, single = net.policy_value(obs[t, n : n + 1])
        assert value[t, n].item() == pytest.approx(single.item(), abs=1e-6)
        assert log_prob[t, n].item() == pytest.approx(policy.log_prob(action[t, n : n + 1]).item(), abs=1e-6)
    assert torch.equal(next_value[:5], value[1:6])
    assert next_value[5, 1].item() == pytest.approx(net.value(final_obs).item(), abs=1e-6)
    assert next_value[5, 0] == value[6, 0]
    assert next_value[-1].tolist() == pytest.approx(net.value(last_obs).tolist(), abs=1e-6)
    assert not value.requires_grad
    assert not log_prob.requires_grad


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("SoftActorCritic", {"update_type": "polyak", "polyak_coef": 0.25}),
        ("TD3", {"update_type": "polyak", "polyak_coef": 0.25}),
        ("CrossQ", {"hid_layers": [3], "critic_batch_renorm": True}),
    ],
)
def test_the_targets_of_actor_critics_on_a_replay_go_as_many_steps_on_as_asked(name, net):
    keys = {"name": name, "gamma": 0.5, "num_step_returns": 3, "training_start_step": 0}
    replay = {"name": "Replay", "batch_size": 1, "max_size": 10}
    algorithm = make(keys, replay, net=net, action_space=Box(-1.0, 1.0, (1,), np.float32))
    algorithm.memory.sample = lambda frame: algorithm.memory.batch(np.zeros(1, np.int64))
    seen = []
    algorithm.critic_learner.step = lambda *batch: (
        seen.append(batch) or {"loss": torch.zeros(()), "error": torch.zeros(1)}
    )
    for t in range(3):
        add(algorithm.memory, float(t), np.zeros(1), 2.0**t, t + 1.0)
    algorithm.update(1)
    obs, _, reward, discount, next_obs, *_ = seen[0]
    assert [x.item() for x in (obs, reward, discount, next_obs)] == [0.0, 1 + 2 / 2 + 4 / 4, 1 / 8, 3.0]
