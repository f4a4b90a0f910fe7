"""Agents with a memory: what feed-forward nets cannot learn, and that all that they remember is accounted for."""

import numpy as np
import pytest
import torch
from agents import Run, make_spec
from test_agent import same, state_of

from slm_lab.agent.memory import RolloutBatch
from slm_lab.agent.net.history import History
from slm_lab.env import make_env
from slm_lab.experiment.checkpoint import Checkpoints

SIZES = {
    "Reinforce": {"training_frequency": 16},
    "A2C": {"training_frequency": 8},
    "PPO": {"time_horizon": 16, "minibatch_size": 32, "training_epoch": 4},
}
FRAMES = {"Reinforce": 5000, "A2C": 5000, "PPO": 2500}
LR = {"Reinforce": 0.02, "A2C": 0.01, "PPO": 0.01}
Q_LEARNING = {"training_frequency": 16, "training_start_step": 64}
SIZES |= {"SARSA": {"training_frequency": 8}, "VanillaDQN": Q_LEARNING, "DQN": Q_LEARNING, "DoubleDQN": Q_LEARNING}
FRAMES |= {"SARSA": 5000, "VanillaDQN": 3000, "DQN": 3000, "DoubleDQN": 3000}
LR |= {"SARSA": 0.01, "VanillaDQN": 0.01, "DQN": 0.01, "DoubleDQN": 0.01}
SIZES |= {"SIL": {"training_frequency": 8, "training_iter": 1}, "PPOSIL": SIZES["PPO"]}
FRAMES |= {"SIL": 2500, "PPOSIL": 2500}
LR |= {"SIL": 0.01, "PPOSIL": 0.01}
PAST = {"sil_replay": {"name": "Replay", "batch_size": 16, "max_size": 200}}
GRU = {"type": "RecurrentNet", "cell_type": "GRU", "rnn_hidden_size": 16, "seq_len": 8, "init_fn": "orthogonal_"}


def recurrent(algorithm, probe="Wander", *, num_envs=2, net=None, memory=None, **keys):
    memory = PAST if "SIL" in algorithm else memory
    return make_spec(algorithm, probe, num_envs=num_envs, net={**GRU, **(net or {})}, memory=memory, **keys)


def score(agent, spec, episodes=64):
    """Mean return of the best known actions."""
    env, returns = make_env(spec.env, seed=1, num_envs=episodes, training=False), {}
    for _ in agent.play(env):
        for episode in env.stats.drain():
            returns.setdefault(episode.env, episode.total_reward)
        if len(returns) == episodes:
            break
    return np.mean(list(returns.values()))


def trained(algorithm, action="discrete", **net):
    net = {"optim_spec": {"name": "Adam", "lr": LR[algorithm]}, **net}
    keys = {**SIZES[algorithm], "gamma": 0.9, "env_keys": {"action": action}}
    make = make_spec if net.get("type") == "MLPNet" else recurrent
    if algorithm in ("DQN", "DoubleDQN"):
        net["update_frequency"] = 64
    memory = {"batch_size": 128, "max_size": 1000} if "DQN" in algorithm else None
    spec = make(algorithm, "Recall", num_envs=8, net=net, memory=memory, **keys)
    return score(Run(spec).train(FRAMES[algorithm]).agent, spec)


@pytest.mark.parametrize("algorithm", SIZES)
def test_what_was_seen_at_the_beginning_is_remembered(algorithm):
    assert trained(algorithm) == 1.0


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_without_a_memory_it_cannot_be(algorithm):
    assert trained(algorithm, type="MLPNet") < 0.7


@pytest.mark.parametrize(
    ("action", "net"),
    [
        ("box", {"cell_type": "LSTM", "log_std_init": -1.0}),
        ("multi_discrete", {"cell_type": "RNN", "shared": True}),
        ("multi_binary", {"cell_type": "GRU", "fc_hid_layers": [16], "rnn_num_layers": 2}),
    ],
)
def test_other_actions_and_cells(action, net):
    assert trained("PPO", action, **net) > 0.8


EVERYWHERE = [(name, "discrete") for name in SIZES]
EVERYWHERE += [
    (name, kind) for name in ("Reinforce", "A2C", "PPO") for kind in ("box", "multi_discrete", "multi_binary")
]


@pytest.mark.parametrize(("algorithm", "action"), EVERYWHERE)
def test_the_seed_decides_everything(algorithm, action):
    spec = recurrent(algorithm, env_keys={"action": action})
    first, again, other = (Run(spec, seed=seed).train(120) for seed in (3, 3, 4))
    assert first.events
    assert same(state_of(again), state_of(first))
    assert again.actions == first.actions
    assert other.actions != first.actions


@pytest.mark.parametrize("algorithm", SIZES)
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_going_on_from_a_checkpoint_is_bit_equal(algorithm, cell, tmp_path):
    spec = recurrent(algorithm, net={"cell_type": cell, "rnn_num_layers": 2})
    whole = Run(spec, seed=3).train(202)
    half = Run(spec, seed=3).train(106)  # in the middle of rollouts and episodes
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=1)
    checkpoints.save(half.frame, state_of(half))
    frame, state = checkpoints.load()
    resumed = Run(spec, seed=4)
    resumed.agent.load_nets(state)
    resumed.agent.load_state_dict(state["agent"])
    assert resumed.env.load_state_dict(state["env"])
    resumed.frame, resumed.obs = frame, resumed.env.obs
    resumed.train(202)
    assert half.actions + resumed.actions == whole.actions
    assert same(state_of(resumed), state_of(whole))


@pytest.mark.parametrize("shared", [True, False])
def test_a_return_goes_on_with_the_value_of_all_that_was_seen(shared):
    """Two episodes, of three steps and of two, that a time limit ends."""
    algorithm = Run(recurrent("SIL", net={"shared": shared, "fc_hid_layers": [4]})).agent.algorithm
    shape = algorithm.setting.obs_space.shape
    obs, final_obs = torch.rand(5, 1, *shape), torch.rand(2, *shape)
    done = torch.tensor([[False], [False], [True], [False], [True]])
    zeros = torch.zeros(5, 1)
    episodes = RolloutBatch(
        obs, zeros.long(), zeros, torch.zeros_like(done), done, obs[-1], done.flatten().nonzero().flatten(), final_obs
    )
    values = []
    for begin, end, final in [(0, 3, final_obs[:1]), (3, 5, final_obs[1:])]:
        seen = torch.cat([obs[begin:end, 0], final]).unsqueeze(1)
        first = torch.zeros(len(seen), 1, dtype=torch.bool)
        first[0] = True
        with torch.no_grad():
            values.append(algorithm.net.value(History(seen, first, None))[-1])
    returns = algorithm.returns(episodes).flatten()
    expected = [values[0] * 0.9**3, values[0] * 0.9**2, values[0] * 0.9, values[1] * 0.9**2, values[1] * 0.9]
    assert torch.allclose(returns, torch.stack(expected), atol=1e-6)


def test_playing_leaves_what_training_remembers_alone():
    spec = recurrent("PPO")
    run = Run(spec).train(50)
    before = state_of(run)
    first, again = score(run.agent, spec), score(run.agent, spec)
    assert first == again
    assert same(state_of(run), before)


def test_a_player_remembers_its_own_episodes():
    """Each of its environments plays as it would alone, from an empty memory on."""
    spec = recurrent("PPO", "Recall")
    agent = Run(spec).train(200).agent
    with torch.no_grad():  # a policy that answers with the sign of what it remembers, and is never sure
        agent.algorithm.net.actor.heads[0].weight.normal_(generator=torch.Generator().manual_seed(0))

    def actions(num_envs):
        env, taken = make_env(spec.env, seed=1, num_envs=num_envs, training=False), []
        step = env.step
        env.step = lambda action: taken.append(action[0]) or step(action)
        for _ in agent.play(env):
            if len(taken) == 30:
                break
        return taken

    alone = actions(1)
    assert alone == actions(5)
    assert len(set(alone)) == 2


def test_an_interruption_forgets_the_episodes_under_way():
    run = Run(recurrent("PPO")).train(10)
    run.agent.interrupt()
    fresh = Run(recurrent("PPO")).agent
    assert same(run.agent.state_dict()["hidden"], fresh.state_dict()["hidden"])
