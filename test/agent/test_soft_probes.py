"""The off-policy actor-critics on environments whose values and policies are known beforehand."""

import numpy as np
import pytest
import torch
from agents import ACTIONS, OFF_POLICY_ACTOR_CRITICS, Run, make_spec
from probes import RIGHT_ACTIONS

GAMMA = 0.7
ALL = list(OFF_POLICY_ACTOR_CRITICS)
KINDS = [(name, kind) for name in ALL for kind in ("discrete", "box") if kind == ACTIONS.get(name, kind)]
KINDS.remove(("SAC Gumbel", "box"))


def train(algorithm, probe, action=None, frames=1000, **keys):
    """Without pay for entropy worth a mention, so that values are those of the rewards."""
    keys = {"gamma": GAMMA, "training_frequency": 8, "training_iter": 4, "training_start_step": 64, **keys}
    keys |= {"fixed_alpha": 0.02} if algorithm != "TD3" else {"exploration_noise": 0.3}
    # a bias before a norm by the batch has no gradient but rounding errors, which a small eps makes steps of
    net = {"optim_spec": {"name": "Adam", "lr": 0.02, "eps": 1e-3 if algorithm == "CrossQ" else 1e-8}}
    spec = make_spec(
        algorithm,
        probe,
        num_envs=8,
        net=net,
        memory={"batch_size": 32, "max_size": 1000},
        env_keys={"action": action or ACTIONS.get(algorithm, "discrete")},
        **keys,
    )
    return Run(spec).train(frames).agent


@torch.no_grad()
def values(agent, *observed):
    """The critics' mean value of what is done there."""
    obs, nets = torch.tensor(observed).unsqueeze(1), agent.algorithm.nets
    action = torch.from_numpy(acts(agent, *observed))
    taken, share = nets.policy.taken(action) if hasattr(nets.policy, "taken") else (action, 1.0)
    return (nets.critics(obs, taken) * share).sum(-1).mean(0).tolist()


def acts(agent, *observed):
    return agent.act(np.array(observed, np.float32)[:, None], explore=False)


@pytest.mark.parametrize("algorithm", ALL)
class TestValues:
    def test_constant_reward(self, algorithm):
        assert values(train(algorithm, "ConstantReward"), 0.0) == pytest.approx([1.0], abs=0.2)

    def test_reward_by_observation(self, algorithm):
        assert values(train(algorithm, "ObservedReward"), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.2)

    def test_delayed_reward(self, algorithm):
        assert values(train(algorithm, "DelayedReward"), 0.0, 1.0) == pytest.approx([GAMMA, 1.0], abs=0.2)

    def test_a_truncated_episode_is_worth_an_endless_one(self, algorithm):
        # an end after three steps would be worth 1, 1.7 or 2.19, which is 1.63 on average
        assert values(train(algorithm, "Endless"), 0.0) == pytest.approx([1 / (1 - GAMMA)], abs=0.4)


@pytest.mark.parametrize(("algorithm", "kind"), KINDS)
def test_reward_by_action_and_observation(algorithm, kind):
    agent = train(algorithm, "ContextReward", kind, frames=1500 if kind == "box" else 1000)
    right = np.array(RIGHT_ACTIONS[kind])
    if kind == "discrete":
        assert acts(agent, -1.0, 1.0).tolist() == right.tolist()
    else:
        assert acts(agent, -1.0, 1.0) == pytest.approx(right, abs=0.25)
