"""The agent as a whole: when it learns, that a seed decides everything, that a saved agent goes on exactly."""

import copy
import re

import numpy as np
import pytest
import torch
from agents import ACTIONS, ALGORITHMS, Run, make_spec

from slm_lab.agent import DivergenceError
from slm_lab.agent.net import Net
from slm_lab.experiment.checkpoint import Checkpoints

LEARNERS = [name for name in ALGORITHMS if name != "Random"]
BY_POLICY = ["Reinforce", "A2C", "A2C n-step", "PPO", "SIL"]
EVERYWHERE = [(name, ACTIONS.get(name, "discrete")) for name in ALGORITHMS]
EVERYWHERE += [(name, "box") for name in ("SAC", "CrossQ")]
EVERYWHERE += [(name, kind) for name in ("Random", *BY_POLICY) for kind in ("box", "multi_discrete", "multi_binary")]


def same(left, right):
    """Whether two states are equal to the last bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(left), np.asarray(right))
    return left == right


def state_of(run):
    return copy.deepcopy({**run.agent.nets_state(), "agent": run.agent.state_dict(), "env": run.env.state_dict()})


def wander(algorithm, action, **keys):
    return make_spec(algorithm, "Wander", num_envs=2, env_keys={"action": action}, **keys)


@pytest.mark.parametrize(("algorithm", "action"), EVERYWHERE)
def test_the_seed_decides_everything(algorithm, action):
    spec = wander(algorithm, action)
    torch.manual_seed(1)
    first = Run(spec, seed=3).train(200)
    torch.manual_seed(2)  # what happens elsewhere does not matter
    again, other = Run(spec, seed=3).train(200), Run(spec, seed=4).train(200)
    assert same(state_of(again), state_of(first))
    assert again.actions == first.actions
    assert again.metrics == first.metrics
    assert other.actions != first.actions
    if algorithm != "Random":
        assert first.events
        assert not same(other.agent.nets_state(), first.agent.nets_state())


GRU = {"type": "RecurrentNet", "cell_type": "GRU", "rnn_hidden_size": 8, "seq_len": 4}


@pytest.mark.parametrize(
    ("algorithm", "net"), [(name, {}) for name in ("PPO", "Rainbow", "SAC", "TD3", "CrossQ")] + [("DQN", GRU)]
)
def test_with_bfloat16_every_net_rounds_and_what_is_kept_is_float32(algorithm, net):
    run = Run(make_spec(algorithm, net=net, meta={"precision": "bfloat16"})).train(60)
    nets = [part for module in run.agent.algorithm.modules.values() for part in module.modules()]
    assert {part.precision for part in nets if isinstance(part, Net)} == {torch.bfloat16}
    assert {tensor.dtype for state in run.agent.nets_state().values() for tensor in state.values()} <= {
        torch.float32,
        torch.int64,  # how many batches a norm has seen
    }
    exact = Run(make_spec(algorithm, net=net)).train(60)
    assert run.metrics != exact.metrics
    assert run.metrics[0]["loss"] == pytest.approx(exact.metrics[0]["loss"], rel=0.05)


@pytest.mark.parametrize(("algorithm", "action"), EVERYWHERE)
def test_going_on_from_a_checkpoint_is_bit_equal(algorithm, action, tmp_path):
    net = {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 1000}, "batch_norm": algorithm in ("PPO", "DQN")}
    spec = wander(algorithm, action, net=net)
    whole = Run(spec, seed=3).train(202)

    half = Run(spec, seed=3).train(106)  # in the middle of rollouts and episodes
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=1)
    checkpoints.save(half.frame, state_of(half))
    frame, state = checkpoints.load()
    resumed = Run(spec, seed=4)  # nothing of its own must be left
    resumed.agent.load_nets(state)
    resumed.agent.load_state_dict(state["agent"])
    assert resumed.env.load_state_dict(state["env"])
    resumed.frame, resumed.obs = frame, resumed.env.obs
    resumed.train(202)
    assert half.actions + resumed.actions == whole.actions
    assert half.metrics + resumed.metrics == whole.metrics
    assert same(state_of(resumed), state_of(whole))


@pytest.mark.parametrize("algorithm", LEARNERS)
@pytest.mark.parametrize("optimiser", ["Adam", "SGD"])
def test_divergence_names_metric_and_frame(algorithm, optimiser):
    # (tanh would bound it: a policy can be sure to the last bit with finite numbers)
    net = {"optim_spec": {"name": optimiser, "lr": 1e30}, "clip_grad_val": None, "hid_layers_activation": "relu"}
    run = Run(make_spec(algorithm, "Wander", num_envs=2, net=net))
    message = r"training diverged at frame (\d+): .*\b(?:sil_)?loss = (nan|inf|-inf).*; try a lower learning rate"
    with pytest.raises(DivergenceError, match=message) as error:
        run.train(1000)
    assert int(re.search(message, str(error.value))[1]) == run.events[-1] == run.frame


@pytest.mark.parametrize(
    ("algorithm", "num_envs", "keys", "events"),
    [
        ("PPO", 1, {"time_horizon": 8, "minibatch_size": 8}, [8, 16, 24]),
        ("PPO", 4, {"time_horizon": 2, "minibatch_size": 8}, [8, 16, 24]),
        ("A2C", 3, {"training_frequency": 3}, [9, 18, 27]),
        ("A2C n-step", 2, {"num_step_returns": 6}, [12, 24]),
        # episodes of two steps: with two environments, two end in every second vector step
        ("Reinforce", 1, {"training_frequency": 3}, [6, 12, 18, 24]),
        ("Reinforce", 2, {"training_frequency": 3}, [8, 16, 24]),
        ("DQN", 4, {"training_frequency": 10, "training_start_step": 13}, [20]),
        ("Random", 1, {}, []),
    ],
)
def test_frames_at_which_it_learns(algorithm, num_envs, keys, events):
    assert Run(make_spec(algorithm, "DelayedReward", num_envs=num_envs, **keys)).train(27).events == events


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_playing_its_best_changes_nothing(algorithm):
    run = Run(wander(algorithm, ACTIONS.get(algorithm, "discrete"), net={"batch_norm": True})).train(60)
    before = state_of(run)
    obs = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    actions = [run.agent.act(obs, explore=False) for _ in range(2)]
    assert (actions[0] == actions[1]).all()
    assert same(state_of(run), before)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_batch_norm_acts_on_a_single_observation(algorithm):
    run = Run(make_spec(algorithm, "Wander", net={"batch_norm": True})).train(60)
    assert run.events
    assert all(np.isfinite(list(metrics.values())).all() for metrics in run.metrics)


ARC = {
    "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": 8}}, {"LazyBatchRenorm1d": {}}, {"Tanh": {}}]}},
    "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
}


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "DQN"])
@pytest.mark.parametrize(
    "net",
    [
        {"type": "HydraMLPNet", "hid_layers": [[[8], [8]], [8], [8]]},
        {"type": "TorchArcNet", "arc": ARC},
        {"type": "outside_nets:Tower", "width": 8},
        {"spectral_norm": True},
    ],
    ids=lambda net: net.get("type", "spectral_norm"),
)
def test_nets_of_every_kind_learn_and_are_restored(algorithm, net):
    spec = wander(algorithm, "discrete", net=net)
    run = Run(spec).train(100)
    assert run.events
    assert all(np.isfinite(list(metrics.values())).all() for metrics in run.metrics)
    other = Run(spec, seed=1)
    other.agent.load_nets(run.agent.nets_state())
    obs = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    assert (other.agent.act(obs, explore=False) == run.agent.act(obs, explore=False)).all()


def test_building_an_agent_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    Run(make_spec("PPO"))
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_and_rate():
    run = Run(make_spec("PPO", num_envs=2)).train(64)  # two rollouts of 16 x 2, each 2 epochs of 4 minibatches
    assert run.agent.opt_steps == 2 * 2 * 4 * 2  # of a policy net and a value net
    assert run.agent.lr == 0.01
    random = Run(make_spec("Random")).train(8).agent
    assert random.opt_steps == 0
    assert np.isnan(random.lr)
    assert random.update(8) == {}


def test_an_interruption_drops_the_rollout_so_far():
    run = Run(make_spec("PPO")).train(10)
    run.agent.interrupt()
    assert run.train(30).events == [26]
    Run(make_spec("Random")).agent.interrupt()


def test_loaded_weights_are_a_copy():
    one, other = Run(make_spec("DQN"), seed=1), Run(make_spec("DQN"), seed=2)
    other.agent.load_nets(one.agent.nets_state())
    assert same(other.agent.nets_state(), one.agent.nets_state())
    one.train(60)
    assert not same(other.agent.nets_state(), one.agent.nets_state())
