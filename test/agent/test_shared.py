"""Workers that train one agent: what they have in common, by hand and in one process."""

import copy
from pathlib import Path

import pytest
import torch
from agents import ALGORITHMS, Run, make_spec
from torch.testing import assert_close

from slm_lab.agent.shared import Shared

MODES = ["shared", "synced"]
OPTIMISERS = ["Adafactor", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop"]
OPTIMISERS += ["Rprop", "SGD"]


def make_agent(seed=0, algorithm="A2C", **net):
    optim_spec = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    return Run(make_spec(algorithm, net={"optim_spec": optim_spec, **net}), seed).agent


def join(file, mode, agents, **counts):
    """Let `agents` be the workers."""
    return [Shared(agent, mode, file, index, len(agents), **counts) for index, agent in enumerate(agents)]


def batch(seed):
    """A batch for the loss of A2C on a probe."""
    generator = torch.Generator().manual_seed(seed)
    obs, advantage, target = torch.randn(6, 1, generator=generator), *torch.randn(2, 6, generator=generator)
    return obs, torch.randint(2, (6,), generator=generator), advantage, target, torch.tensor(0.01), torch.tensor(1.0)


def learner_of(agent):
    return agent.algorithm.learner


def weights(agent):
    return [parameter.detach().clone() for group in learner_of(agent).groups for parameter in group.parameters]


def set_weights(agent, values):
    parameters = [parameter for group in learner_of(agent).groups for parameter in group.parameters]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def gradients(agent, values, data):
    """The gradient of the loss at other weights than the agent's."""
    agent = copy.deepcopy(agent)
    set_weights(agent, values)
    learner = learner_of(agent)
    loss, _ = learner.loss(learner.nets, *data)
    return torch.autograd.grad(loss, [parameter for group in learner.groups for parameter in group.parameters])


def apply(agent, gradient):
    """Take the optimiser steps of an agent that is alone."""
    rest = iter(gradient)
    for group in learner_of(agent).groups:
        group.step([next(rest).clone() for _ in group.parameters])


def optim_state(agent):
    return learner_of(agent).state_dict()["groups"]


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_two_on_one_net_are_one_that_takes_both_gradients(tmp_path, optimiser):
    net = {} if optimiser == "SGD" else {"optim_spec": {"name": optimiser, "lr": 0.05}}
    alone, one, two = (make_agent(seed, **net) for seed in (1, 1, 2))
    join(tmp_path / "memory", "shared", [one, two])
    for step, agent in enumerate([two, one, one, two, one]):
        learner_of(agent).step(*batch(step))
        learner_of(alone).step(*batch(step))
        for each in (one, two):
            assert same(weights(each), weights(alone)), step
    for each in (one, two):
        learner_of(each).step(*batch(9))  # so that both have taken up the state of all
        learner_of(alone).step(*batch(9))
    assert same(optim_state(one), optim_state(alone))
    assert same(optim_state(two), optim_state(alone))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_synced_workers_hand_their_gradients_to_one_optimiser(tmp_path, optimiser):
    net = {} if optimiser == "SGD" else {"optim_spec": {"name": optimiser, "lr": 0.05}}
    alone, one, two = (make_agent(seed, clip_grad_val=None, **net) for seed in (1, 1, 2))
    join(tmp_path / "memory", "synced", [one, two])
    home = {id(one): weights(alone), id(two): weights(alone)}
    for step, agent in enumerate([two, one, one, two, one, two, two]):
        assert same(weights(agent), home[id(agent)]), step  # what another does is not seen before the next own step
        apply(alone, gradients(alone, home[id(agent)], batch(step)))
        learner_of(agent).step(*batch(step))
        home[id(agent)] = weights(alone)
    assert same(optim_state(one), optim_state(alone))


@pytest.mark.parametrize("mode", MODES)
def test_at_the_end_all_have_the_weights_of_the_last_step(tmp_path, mode):
    agents = [make_agent(seed) for seed in range(3)]
    workers = join(tmp_path / "memory", mode, agents)
    assert same(weights(agents[2]), weights(agents[0]))
    for step in range(7):
        learner_of(agents[step % 3]).step(*batch(step))
    for worker in workers:
        worker.pull()
    assert same(weights(agents[1]), weights(agents[0]))
    assert same(weights(agents[2]), weights(agents[0]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimiser", ["Adam", "Adagrad", "SGD"])
def test_a_worker_that_went_on_is_the_one_that_never_stopped(tmp_path, mode, optimiser):
    net = {} if optimiser == "SGD" else {"optim_spec": {"name": optimiser, "lr": 0.05}}
    scheduler = {"name": "StepLR", "step_size": 3, "gamma": 0.5}
    alone, other, one, two = (make_agent(seed, lr_scheduler_spec=scheduler, **net) for seed in range(4))
    for step in range(4):
        learner_of(alone).step(*batch(step))
        learner_of(alone).decay(step)
    learner_of(other).step(*batch(99))
    learner_of(other).decay(0)
    for agent, before in ((one, alone), (two, other)):  # what the second one brings does not count
        agent.load_nets(before.nets_state())
        agent.load_state_dict(copy.deepcopy(before.state_dict()))
    join(tmp_path / "memory", mode, [one, two])
    for step in range(4, 10):
        for agent in (two, alone):
            learner_of(agent).step(*batch(step))
            learner_of(agent).decay(step)
        assert same(weights(two), weights(alone))
        assert learner_of(two).lr == learner_of(alone).lr
    assert same(optim_state(two), optim_state(alone))


def test_schedulers_count_the_events_of_all(tmp_path):
    scheduler = {"name": "StepLR", "step_size": 2, "gamma": 0.1}
    agents = [make_agent(seed, lr_scheduler_spec=scheduler) for seed in (1, 2)]
    join(tmp_path / "memory", "shared", agents)
    one, two = map(learner_of, agents)
    for learner in (one, two):
        learner.step(*batch(0))
    rates = []
    for learner in (one, one, two, two, two, one):
        learner.decay(0)
        rates.append(learner.lr)
    assert_close(rates, [0.1, 0.01, 0.01, 0.001, 0.001, 0.0001])


@pytest.mark.parametrize("mode", MODES)
def test_target_nets_and_running_statistics_are_common(tmp_path, mode):
    agents = [make_agent(seed, "DQN", batch_norm=True) for seed in (1, 2)]
    join(tmp_path / "memory", mode, agents)
    one, two = (agent.algorithm for agent in agents)
    assert same(two.target_net.state_dict(), one.target_net.state_dict())
    before = copy.deepcopy(two.target_net.state_dict())
    obs, ones = torch.randn(8, 1), torch.ones(8)
    one.learner.step(obs, torch.zeros(8, dtype=torch.int64), ones, ones, obs, ones)
    one.update_target(0.5)
    assert same(two.target_net.state_dict(), one.target_net.state_dict())
    assert not same(two.target_net.state_dict(), before)
    assert same(list(two.net.buffers()), list(one.net.buffers()))
    assert two.net.body[1].num_batches_tracked == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "Random"])
def test_workers_of_every_algorithm_come_to_one_agent(tmp_path, mode, algorithm):
    runs = [Run(make_spec(algorithm, num_envs=2), seed) for seed in (1, 2)]
    begun = copy.deepcopy(runs[0].agent.nets_state())
    workers = join(tmp_path / "memory", mode, [run.agent for run in runs])
    for until in range(50, 201, 50):
        for run in runs:
            run.train(until)
    for worker in workers:
        worker.pull()
        assert worker.sound()
    assert all(run.events for run in runs)
    one, two = (run.agent.nets_state() for run in runs)
    assert same(two, one)
    assert not same(one, begun)
    assert runs[0].actions != runs[1].actions


@pytest.mark.parametrize("mode", MODES)
def test_a_temperature_that_is_taken_back_is_so_for_all(tmp_path, mode):
    agents = [make_agent(seed, "SAC") for seed in (1, 2)]
    join(tmp_path / "memory", mode, agents)
    one, two = (agent.algorithm.nets.temperature for agent in agents)
    with torch.no_grad():
        one.log_alpha.fill_(9.0)
    one.clamp()
    assert two.log_alpha == one.high


def test_frames_and_steps_are_counted_over_all(tmp_path):
    agents = [make_agent(seed) for seed in (1, 2)]
    one, two = join(tmp_path / "memory", "synced", agents, frame=100, opt_step=7)
    assert (one.frame, two.frame, two.opt_step) == (100, 100, 7)
    assert [one.count(4), two.count(4), two.count(4), one.count(4)] == [104, 108, 112, 116]
    for step, agent in enumerate([agents[0], agents[1], agents[1]]):
        learner_of(agent).step(*batch(step))
    # policy and value are two steps; each worker counts its own when it looks
    assert (two.opt_step, one.opt_step, two.opt_step) == (11, 13, 13)


def test_all_are_done_when_the_last_one_is(tmp_path):
    one, two, three = join(tmp_path / "memory", "shared", [make_agent(seed) for seed in (1, 2, 3)])
    assert [two.done(), one.done(), two.done(), three.done(), one.done()] == [False, False, False, True, True]


@pytest.mark.parametrize("mode", MODES)
def test_weights_that_are_no_numbers_are_not_sound(tmp_path, mode):
    agents = [make_agent(seed) for seed in (1, 2)]
    _, two = join(tmp_path / "memory", mode, agents)
    assert two.sound()
    learner_of(agents[0]).step(*(part * torch.nan if part.is_floating_point() else part for part in batch(0)))
    assert not two.sound()


def test_a_worker_may_say_that_they_are_not(tmp_path):
    one, two = join(tmp_path / "memory", "shared", [make_agent(seed) for seed in (1, 2)])
    one.spoil()
    assert not two.sound()


def test_workers_with_other_nets_are_refused(tmp_path):
    one, two = make_agent(1), make_agent(2, hid_layers=[17])
    with pytest.raises(RuntimeError, match="another worker has other nets"):
        join(tmp_path / "memory", "shared", [one, two])


def test_the_file_has_its_name_when_everything_is_in_it(tmp_path, monkeypatch):
    file, seen = tmp_path / "memory", []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: seen.append(self.read_bytes()) or rename(self, to))
    Shared(make_agent(), "shared", file, 0, 2, frame=100)
    assert seen == [file.read_bytes()]
    assert list(tmp_path.iterdir()) == [file]
