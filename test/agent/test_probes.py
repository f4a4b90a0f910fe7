"""Every algorithm on environments whose values and policies are known beforehand."""

import numpy as np
import pytest
import torch
from agents import ACTION_VALUE_LEARNERS, ALGORITHMS, OFF_POLICY_ACTOR_CRITICS, VALUE_LEARNERS, Run, make_spec
from probes import RIGHT_ACTIONS

GAMMA = 0.7
POLICY_LEARNERS = [name for name in ALGORITHMS if name not in ("Random", *OFF_POLICY_ACTOR_CRITICS)]
LR = {
    "Reinforce": 0.05,
    "Cross-entropy": 0.05,
    "A2C": 0.03,
    "A2C n-step": 0.03,
    "PPO": 0.02,
    "PPO scaled": 0.02,
    "SIL": 0.03,
    "PPOSIL": 0.02,
    "DQN": 0.02,
    "DoubleDQN": 0.02,
    "VanillaDQN": 0.02,
    "QR-DQN": 0.02,
    "Rainbow": 0.02,
    "SARSA": 0.02,
}
FRAMES = {
    "Reinforce": 1600,
    "Cross-entropy": 1600,
    "A2C": 4000,
    "A2C n-step": 3000,
    "PPO": 2048,
    "PPO scaled": 2048,
    "SIL": 3000,
    "PPOSIL": 2048,
    "DQN": 2400,
    "DoubleDQN": 2400,
    "VanillaDQN": 2400,
    "QR-DQN": 2400,
    "Rainbow": 2400,
    "SARSA": 4000,
}
CHANGES = {
    "Reinforce": {"training_frequency": 16},
    "Cross-entropy": {"training_frequency": 16},
    "A2C": {"training_frequency": 4},
    "A2C n-step": {"num_step_returns": 3},
    "PPO": {"time_horizon": 16, "minibatch_size": 32, "training_epoch": 4},
    "PPO scaled": {"time_horizon": 16, "minibatch_size": 32, "training_epoch": 4},
    "SIL": {"training_frequency": 16},  # episodes
    "PPOSIL": {"time_horizon": 16, "minibatch_size": 32, "training_epoch": 4},
    "DQN": {"training_frequency": 8, "training_start_step": 64},
    "DoubleDQN": {"training_frequency": 8, "training_start_step": 64},
    "VanillaDQN": {"training_frequency": 8, "training_start_step": 64},
    "QR-DQN": {"training_frequency": 8, "training_start_step": 64},
    "Rainbow": {"training_frequency": 8, "training_start_step": 64},
    "SARSA": {"training_frequency": 2},
}


def train(algorithm, probe, action="discrete", **net):
    net = {"optim_spec": {"name": "Adam", "lr": LR[algorithm]}, **net}
    memory = None
    if algorithm in ACTION_VALUE_LEARNERS and algorithm != "SARSA":
        net |= {"update_frequency": 64} if algorithm != "VanillaDQN" else {}
        memory = {"batch_size": 32, "max_size": 1000}
    keys = {"gamma": GAMMA, **CHANGES[algorithm]}
    spec = make_spec(algorithm, probe, num_envs=8, net=net, memory=memory, env_keys={"action": action}, **keys)
    return Run(spec).train(FRAMES[algorithm]).agent


@torch.no_grad()
def values(agent, *observed):
    """V of each of `observed`."""
    obs = torch.tensor(observed).unsqueeze(1)
    net = agent.algorithm.net
    return (net.value(obs) if hasattr(net, "value") else action_values(agent, obs).max(-1).values).tolist()


def action_values(agent, obs):
    """Q of each of `obs`."""
    agent.act(obs.numpy(), explore=False)  # no noise
    algorithm = agent.algorithm
    out = algorithm.net(obs)[0]
    return algorithm.value.q(out.unflatten(1, (2, -1))) if hasattr(algorithm, "value") else out


def acts(agent, *observed):
    return agent.act(np.array(observed, np.float32)[:, None], explore=False)


@pytest.mark.parametrize("algorithm", VALUE_LEARNERS)
class TestValues:
    def test_constant_reward(self, algorithm):
        assert values(train(algorithm, "ConstantReward"), 0.0) == pytest.approx([1.0], abs=0.05)

    def test_reward_by_observation(self, algorithm):
        assert values(train(algorithm, "ObservedReward"), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.1)

    def test_delayed_reward(self, algorithm):
        assert values(train(algorithm, "DelayedReward"), 0.0, 1.0) == pytest.approx([GAMMA, 1.0], abs=0.1)

    def test_a_truncated_episode_is_worth_an_endless_one(self, algorithm):
        # an end after three steps would be worth 1, 1.7 or 2.19, which is 1.63 on average
        assert values(train(algorithm, "Endless"), 0.0) == pytest.approx([1 / (1 - GAMMA)], abs=0.15)


@pytest.mark.parametrize("algorithm", POLICY_LEARNERS)
class TestPolicies:
    def test_reward_by_action(self, algorithm):
        agent = train(algorithm, "ActionReward")
        assert acts(agent, 0.0).tolist() == [1]
        if algorithm in ACTION_VALUE_LEARNERS:
            q = action_values(agent, torch.zeros(1, 1)).flatten().tolist()
            assert q == pytest.approx([-1.0, 1.0], abs=0.1)
        else:
            assert agent.algorithm.net.policy(torch.zeros(1, 1)).log_p.exp()[0, 1].item() > 0.9

    def test_reward_by_action_and_observation(self, algorithm):
        agent = train(algorithm, "ContextReward")
        assert acts(agent, -1.0, 1.0).tolist() == [0, 1]


@pytest.mark.parametrize("algorithm", ["A2C", "PPO", "Reinforce"])
@pytest.mark.parametrize("action", ["multi_discrete", "multi_binary"])
def test_several_choices_at_once(algorithm, action):
    agent = train(algorithm, "ContextReward", action)
    assert acts(agent, -1.0, 1.0).tolist() == list(RIGHT_ACTIONS[action])


@pytest.mark.parametrize("algorithm", ["A2C", "PPO", "Reinforce"])
def test_continuous_actions(algorithm):
    net = {"log_std_init": -1.0, "optim_spec": {"name": "Adam", "lr": 0.01}}
    agent = train(algorithm, "ContextReward", "box", **net)
    assert acts(agent, -1.0, 1.0) == pytest.approx(np.array(RIGHT_ACTIONS["box"]), abs=0.2)
