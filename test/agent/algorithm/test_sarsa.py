import numpy as np
import pytest
from gymnasium.spaces import MultiDiscrete
from hand import add, make, set_linear, zeros
from torch.testing import assert_close

from slm_lab.env import Step
from slm_lab.lib.rng import stream_state
from slm_lab.spec import SpecError

SARSA = {
    "name": "SARSA",
    "action_policy": "epsilon_greedy",
    "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.0, "end_step": 100},
    "gamma": 0.5,
    "training_frequency": 4,
}
BATCH, EPISODES = {"name": "OnPolicyBatchReplay"}, {"name": "OnPolicyReplay"}


def sarsa(memory=BATCH, **keys):
    """Q(s, 0) = s and Q(s, 1) = 2 s + 1."""
    algorithm = make({**SARSA, **keys}, memory, num_envs=keys.pop("num_envs", 1))
    set_linear(algorithm.net, [1.0, 2.0], [0.0, 1.0])
    return algorithm


def target(algorithm, frame):
    return algorithm.target(algorithm.memory.sample(), frame)[:, 0].tolist()


def test_targets_by_hand():
    algorithm = sarsa()
    add(algorithm.memory, 0.0, 0, 1.0, 4.0)
    add(algorithm.memory, 4.0, 0, 2.0, 2.0)
    add(algorithm.memory, 2.0, 1, 3.0, 6.0)
    add(algorithm.memory, 6.0, 0, 4.0, 8.0)
    # the values of the actions taken next are Q(4, 0), Q(2, 1), Q(6, 0); what follows is worth 8 or 17, or halfway
    assert target(algorithm, 100) == [1 + 4 / 2, 2 + 5 / 2, 3 + 6 / 2, 4 + 17 / 2]
    for obs, action in ((0.0, 0), (4.0, 0), (2.0, 1), (6.0, 0)):
        add(algorithm.memory, obs, action, 0.0, 8.0)
    assert target(algorithm, 50)[-1] == (0.75 * 17 + 0.25 * 8) / 2


@pytest.mark.parametrize(("end", "after"), [("terminated", 0.0), ("truncated", 0.5 * (2 * 9 + 1))])
def test_an_episode_that_ends_inside_the_batch(end, after):
    algorithm = sarsa()
    add(algorithm.memory, 0.0, 0, 1.0, 4.0)
    add(algorithm.memory, 4.0, 0, 2.0, 50.0, **{end: True}, final_obs=9.0)
    add(algorithm.memory, 50.0, 0, 3.0, 51.0)
    add(algorithm.memory, 51.0, 0, 4.0, 60.0, **{end: True}, final_obs=9.0)
    assert target(algorithm, 100) == [3.0, 2 + after, 3 + 51 / 2, 4 + after]


def test_environments_do_not_mix():
    algorithm = make({**SARSA, "training_frequency": 2}, BATCH, num_envs=2)
    set_linear(algorithm.net, [1.0, 2.0], [0.0, 1.0])
    steps = [([0, 10], [0, 1], [[False, False], [False, True]]), ([1, 20], [1, 0], [[True, False], [False, False]])]
    for obs, action, (terminated, truncated) in steps:
        following = np.array([[obs[0] + 1], [obs[1] + 10]], np.float32)
        flags = np.array(terminated), np.array(truncated)
        step = Step(following, np.ones(2, np.float32), *flags, following + 5)
        algorithm.memory.add(np.array(obs, np.float32)[:, None], np.array(action), step)
    expected = [[1 + 3 / 2, 1 + (2 * 25 + 1) / 2], [1.0, 1 + (2 * 30 + 1) / 2]]
    assert algorithm.target(algorithm.memory.sample(), 100).tolist() == expected


def test_whole_episodes():
    algorithm = sarsa(EPISODES, training_frequency=2)
    add(algorithm.memory, 0.0, 0, 1.0, 4.0)
    add(algorithm.memory, 4.0, 1, 2.0, 50.0, truncated=True, final_obs=9.0)
    assert not algorithm.ready(0)
    add(algorithm.memory, 50.0, 1, 3.0, 60.0, terminated=True, final_obs=9.0)
    assert algorithm.ready(0)
    assert target(algorithm, 100) == [1 + 9 / 2, 2 + 19 / 2, 3.0]


def test_the_loss_and_the_step_by_hand():
    algorithm = sarsa(training_frequency=1)
    algorithm.learner.groups[0].optimizer.param_groups[0]["lr"] = 0.25
    add(algorithm.memory, 2.0, 1, 1.0, 0.0, terminated=True, final_obs=1.0)
    # Q(2, 1) = 5, the target is 1: d loss / d Q = 8; only action 1, and times obs 2 for the weight
    assert_close(algorithm.update(1), {"q": 3.5, "loss": 16.0})
    assert algorithm.net.heads[0].bias.tolist() == [0.0, -1.0]
    assert algorithm.net.heads[0].weight.flatten().tolist() == [1.0, -2.0]


def test_boltzmann_values_what_it_does():
    tau = {"name": "no_decay", "start_val": 2.0}
    algorithm = sarsa(action_policy="boltzmann", explore_var_spec=tau, training_frequency=1)
    add(algorithm.memory, 0.0, 0, 0.0, 1.0)
    share = 1 / (1 + np.exp((1 - 3) / 2))
    assert target(algorithm, 0) == pytest.approx([0.5 * (3 * share + 1 - share)])
    assert algorithm.act(1 + zeros(20_000), 0).mean() == pytest.approx(share, abs=0.02)


def test_without_exploration_it_is_greedy_and_draws_nothing():
    algorithm = sarsa()
    stream = stream_state(algorithm.generators["action"])
    assert algorithm.act(zeros(100), 0, explore=False).tolist() == [1] * 100
    assert stream_state(algorithm.generators["action"]) == stream
    assert algorithm.variables(50) == {"explore_var": 0.5}


def test_other_actions_than_discrete_ones_are_an_error():
    with pytest.raises(SpecError, match=r"SARSA needs discrete actions"):
        make(SARSA, BATCH, action_space=MultiDiscrete([2, 2]))
