import numpy as np
import pytest
import torch
from gymnasium.spaces import MultiDiscrete
from hand import add, make, set_linear, zeros
from torch.nn import functional
from torch.testing import assert_close

from slm_lab.agent.algorithm.base import TargetUpdate
from slm_lab.env import Step
from slm_lab.lib.rng import stream_state
from slm_lab.spec import SpecError

DQN = {
    "name": "DQN",
    "action_policy": "epsilon_greedy",
    "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.0, "end_step": 100},
    "gamma": 0.5,
    "training_frequency": 1,
}
MEMORY = {"name": "Replay", "batch_size": 4, "max_size": 100}


def dqn(net=None, num_envs=1, **keys):
    algorithm = make({**DQN, **keys}, MEMORY, net=net, num_envs=num_envs)
    set_linear(algorithm.net, [0.5, 1.0], [0.5, 1.0])
    return algorithm


@pytest.mark.parametrize(
    ("name", "end", "loss"),
    [
        # at the successor 1, Q is 1, 2 and Q_target is 5, 3; Q(0, 0) = 0.5; reward 1
        ("DQN", {}, (0.5 - (1 + 0.5 * 5)) ** 2),
        ("DoubleDQN", {}, (0.5 - (1 + 0.5 * 3)) ** 2),  # the online net likes action 1, the target net says what for
        ("VanillaDQN", {}, (0.5 - (1 + 0.5 * 2)) ** 2),  # its own best
        ("DQN", {"terminated": True, "final_obs": 1.0}, (0.5 - 1) ** 2),
        ("DoubleDQN", {"terminated": True, "final_obs": 1.0}, (0.5 - 1) ** 2),
        # the next episode begins at 7; what counts is where this one was cut
        ("DQN", {"truncated": True, "next_obs": 7.0, "final_obs": 1.0}, 9.0),
        ("DoubleDQN", {"truncated": True, "next_obs": 7.0, "final_obs": 1.0}, 4.0),
    ],
)
def test_loss_by_hand(name, end, loss):
    algorithm = dqn(name=name)
    if name != "VanillaDQN":
        set_linear(algorithm.target_net, [4.0, 1.0], [1.0, 2.0])
    add(algorithm.memory, 0.0, 0, 1.0, **{"next_obs": 1.0, **end})
    assert_close(algorithm.update(1), {"q": 0.75, "loss": loss})


def test_several_steps_by_hand():
    algorithm = dqn(num_step_returns=3)
    set_linear(algorithm.target_net, [4.0, 1.0], [1.0, 2.0])
    for t in range(3):
        add(algorithm.memory, float(t), 0, 2.0**t, t + 1.0)
    algorithm.memory.sample = lambda frame: algorithm.memory.batch(np.zeros(1, np.int64))
    # 1 + 2 / 2 + 4 / 4 + max Q_target(3) / 8
    assert algorithm.update(1)["loss"] == pytest.approx((0.5 - (3 + 13 / 8)) ** 2)


def test_vanilla_has_no_target_net():
    algorithm = make({**DQN, "name": "VanillaDQN"}, MEMORY)
    assert list(algorithm.modules) == ["net"]
    assert algorithm.target_net is algorithm.net


def test_the_step_by_hand():
    algorithm = dqn(net={"optim_spec": {"name": "SGD", "lr": 0.25}}, training_batch_iter=1)
    add(algorithm.memory, 2.0, 1, 1.0, 1.0, terminated=True, final_obs=1.0)
    algorithm.update(1)
    # Q(2, 1) = 3, the target is 1: d loss / d Q = 4, times 0.25; only action 1, and times obs 2 for the weight
    assert_close(algorithm.net.heads[0].bias.detach(), torch.tensor([0.5, 0.0]))
    assert_close(algorithm.net.heads[0].weight.detach(), torch.tensor([[0.5], [-1.0]]))


def test_the_target_net_begins_as_the_net():
    algorithm = make(DQN, MEMORY)
    for old, new in zip(algorithm.target_net.parameters(), algorithm.net.parameters(), strict=True):
        assert torch.equal(old, new)
        assert not old.requires_grad


def test_the_loss_of_the_spec_is_used():
    algorithm = dqn(net={"loss_spec": {"name": "L1Loss"}})
    add(algorithm.memory, 0.0, 0, 1.0, 1.0, terminated=True, final_obs=1.0)
    assert algorithm.update(1)["loss"] == 0.5


def drive(algorithm, until):
    """Act out `until` frames; return the frames of training events and those at which the target became the net."""
    num_envs, events, copies = algorithm.setting.num_envs, [], []
    rng, flags = np.random.default_rng(0), np.zeros(num_envs, bool)
    obs = rng.normal(size=(num_envs, 1)).astype(np.float32)
    for frame in range(num_envs, until + 1, num_envs):
        next_obs = rng.normal(size=(num_envs, 1)).astype(np.float32)
        step = Step(next_obs, np.ones(num_envs, np.float32), flags, flags, next_obs)
        algorithm.memory.add(obs, np.zeros(num_envs, np.int64), step)
        obs = next_obs
        if algorithm.ready(frame):
            algorithm.update(frame)
            events.append(frame)
            if torch.equal(algorithm.net.heads[0].bias, algorithm.target_net.heads[0].bias):
                copies.append(frame)
    return events, copies


@pytest.mark.parametrize(
    ("num_envs", "frequency", "start", "events"),
    [
        (1, 1, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (1, 4, 0, [4, 8, 12]),
        (1, 10, 0, [10]),
        (4, 1, 0, [4, 8, 12]),  # one event per vector step at most
        (4, 4, 0, [4, 8, 12]),
        (1, 4, 8, [8, 12]),
        (1, 4, 9, [12]),
        (4, 1, 9, [12]),
    ],
)
def test_frames_at_which_it_learns(num_envs, frequency, start, events):
    algorithm = dqn(num_envs=num_envs, training_frequency=frequency, training_start_step=start)
    assert drive(algorithm, 12)[0] == events


SLOW = {"optim_spec": {"name": "SGD", "lr": 0.01}}


@pytest.mark.parametrize(
    ("num_envs", "frequency", "every", "events", "copies"),
    [
        (4, 10, 1, [12, 20, 32, 40, 52, 60], [12, 20, 32, 40, 52, 60]),
        (4, 10, 25, [12, 20, 32, 40, 52, 60], [32, 52]),  # the first events that see 25 and 50 passed
        (3, 10, 20, [12, 21, 30, 42, 51, 60], [21, 42, 60]),  # n does not divide it
        (1, 10, 15, [10, 20, 30, 40, 50, 60], [20, 30, 50, 60]),
        (1, 30, 60, [30, 60], [60]),
        (4, 30, 1000, [32, 60], []),
    ],
)
def test_frames_at_which_the_target_is_replaced(num_envs, frequency, every, events, copies):
    algorithm = dqn(num_envs=num_envs, training_frequency=frequency, net={**SLOW, "update_frequency": every})
    assert drive(algorithm, 60) == (events, copies)


def test_iterations_and_batches():
    algorithm = dqn(training_iter=3, training_batch_iter=2, net=SLOW)
    loss, batches = algorithm.learner.loss, []

    def watched(nets, obs, *rest):
        batches.append(obs.flatten().tolist())
        return loss(nets, obs, *rest)

    algorithm.learner.loss = watched
    for t in range(20):
        add(algorithm.memory, t / 10, 0, 1.0, t / 10 + 0.1)
    algorithm.update(20)
    assert algorithm.learner.opt_steps == 6
    assert batches[0] == batches[1] != batches[2] == batches[3] != batches[4] == batches[5]


def test_polyak_follows_after_every_gradient_step():
    # a net that (almost) stands still at bias (0.5, 1): after k steps the target is at net + 0.75^k (start - net)
    still = {"optim_spec": {"name": "SGD", "lr": 1e-30}, "update_type": "polyak", "polyak_coef": 0.25}
    algorithm = dqn(training_iter=3, training_batch_iter=2, net=still)
    set_linear(algorithm.target_net, [0.5, 1.0], [8.5, -3.0])
    add(algorithm.memory, 0.0, 0, 1.0, 1.0)
    algorithm.update(1)
    left = 0.75**6
    assert_close(algorithm.target_net.heads[0].bias, torch.tensor([0.5 + 8 * left, 1 - 4 * left]))


def test_polyak_takes_no_copies():
    algorithm = dqn(net={**SLOW, "update_type": "polyak", "polyak_coef": 0.01, "update_frequency": 1})
    assert drive(algorithm, 5) == ([1, 2, 3, 4, 5], [])


def test_the_target_takes_over_the_statistics_of_batch_norms():
    algorithm = make(DQN, MEMORY, net={"hid_layers": [4], "batch_norm": True, "update_frequency": 1})
    before = [buffer.clone() for buffer in algorithm.target_net.buffers()]
    for t in range(9):
        add(algorithm.memory, float(t), 0, 1.0, t + 1.0)
    algorithm.update(9)
    pairs = list(zip(algorithm.target_net.buffers(), algorithm.net.buffers(), strict=True))
    assert pairs
    assert all(torch.equal(old, new) for old, new in pairs)
    assert not any(torch.equal(old, new) for old, new in zip(before, algorithm.net.buffers(), strict=True))


def test_a_full_update_is_an_exact_copy():
    net, target = torch.nn.Linear(9, 9), torch.nn.Linear(9, 9)
    TargetUpdate(target, net)()
    assert torch.equal(target.weight, net.weight)


@pytest.mark.parametrize(
    ("frame", "share"),  # the best action is 1; a random action is 0 half of the time
    [(0, 0.5), (50, 0.25), (100, 0.0), (10_000, 0.0)],
)
def test_epsilon_follows_its_schedule(frame, share):
    algorithm = dqn()
    assert algorithm.variables(frame)["explore_var"] == 2 * share
    actions = algorithm.act(zeros(10_000), frame)
    assert (actions == 0).mean() == pytest.approx(share, abs=0.02 if share else 0)


def test_boltzmann_follows_its_schedule():
    tau = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.25, "end_step": 100}
    algorithm = dqn(action_policy="boltzmann", explore_var_spec=tau)
    obs = zeros(10_000)  # Q = 0.5, 1: e^(0.5 / tau) to 1
    for frame, share in ((0, 0.6225), (100, 0.8808)):
        assert algorithm.act(obs, frame).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("policy", ["epsilon_greedy", "boltzmann"])
def test_without_exploration_it_is_greedy_and_draws_nothing(policy):
    algorithm = dqn(action_policy=policy, explore_var_spec={"name": "no_decay", "start_val": 1.0})
    stream = stream_state(algorithm.generators["action"])
    assert algorithm.act(zeros(100), 0, explore=False).tolist() == [1] * 100
    assert stream_state(algorithm.generators["action"]) == stream


def test_other_actions_than_discrete_ones_are_an_error():
    message = r"agent\.algorithm\.name: DQN needs discrete actions, .*MultiDiscrete.*; use another algorithm"
    with pytest.raises(SpecError, match=message):
        make(DQN, MEMORY, action_space=MultiDiscrete([2, 2]))


PRIORITIZED = {**MEMORY, "name": "PrioritizedReplay", "alpha": 1.0, "epsilon": 0.5}
PRIORITIZED["beta_spec"] = {"name": "linear_decay", "start_val": 0.0, "end_val": 1.0, "end_step": 10}


def test_priorities_and_weights_by_hand():
    algorithm = make(DQN, PRIORITIZED, net={"optim_spec": {"name": "SGD", "lr": 1e-30}})
    set_linear(algorithm.net, [0.0, 0.0], [0.5, 0.0])
    add(algorithm.memory, 0.0, 0, 1.0, 0.0, terminated=True)  # error 0.5
    add(algorithm.memory, 0.0, 0, -1.0, 0.0, terminated=True)  # error -1.5
    assert algorithm.update(0)["loss"] == pytest.approx((0.25 + 2.25) / 2)
    first, second = algorithm.memory.tree.leaves[algorithm.memory.valid.nonzero()[0]]
    assert (first, second) == (1.0, 2.0)
    # four strata: one and a third from the first, and the rest from the second; weights 1 and (2 P)^-1 / (2 P')^-1
    losses = {round(algorithm.update(10)["loss"], 4) for _ in range(20)}
    assert losses == {round((n * 0.25 + (4 - n) * 2.25 / 2) / 4, 4) for n in (1, 2)}


C51 = {"value_dist_spec": {"name": "C51", "v_min": 0, "v_max": 2, "num_atoms": 3}}
QR = {"value_dist_spec": {"name": "QR", "num_quantiles": 2}}


def logits(*rows):
    return torch.tensor(rows).log().flatten().tolist()


def set_outputs(net, outputs):
    set_linear(net, [0.0] * len(outputs), outputs)


@pytest.mark.parametrize(("name", "projected"), [("DQN", [0.0, 0.25, 0.75]), ("DoubleDQN", [0.0, 0.5, 0.5])])
def test_c51_by_hand(name, projected):
    algorithm = make({**DQN, **C51, "name": name}, PRIORITIZED)
    # online, action 1 is the better one (1 to 0.75); for the target net, action 0 (1.5 to 1)
    set_outputs(algorithm.net, logits([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    set_outputs(algorithm.target_net, logits([0.25, 0.0, 0.75], [0.5, 0.0, 0.5]))
    assert_close(algorithm.value.q(algorithm.net(torch.zeros(1, 1))[0].view(1, 2, 3)), torch.tensor([[0.75, 1.0]]))
    assert algorithm.act(zeros(3), 100).tolist() == [1, 1, 1]
    add(algorithm.memory, 0.0, 0, 1.0, 0.0)  # the atoms 0, 1, 2 go to 1, 1.5, 2
    target = torch.tensor(projected)
    loss = (target.xlogy(target) - target * torch.tensor([0.5, 0.25, 0.25]).log()).sum().item()
    assert algorithm.update(1)["loss"] == pytest.approx(loss)
    assert algorithm.memory.tree.total == pytest.approx(loss + 0.5)


def test_qr_by_hand():
    algorithm = make({**DQN, **QR}, PRIORITIZED)
    set_outputs(algorithm.net, [0.0, 2.0, 1.0, 5.0])
    set_outputs(algorithm.target_net, [2.0, 6.0, 4.0, 0.0])
    assert algorithm.value.q(algorithm.net(torch.zeros(1, 1))[0].view(1, 2, 2)).tolist() == [[1.0, 3.0]]
    add(algorithm.memory, 0.0, 0, 1.0, 0.0)  # the best next quantiles 2 and 6 go to 2 and 4; those learned are 0 and 2
    loss = (0.25 * 1.5 + 0.25 * 3.5) / 2 + (0.0 + 0.75 * 1.5) / 2
    assert algorithm.update(1)["loss"] == pytest.approx(loss)
    assert algorithm.memory.tree.total == pytest.approx(loss + 0.5)


@pytest.mark.parametrize("kind", [C51, QR])
def test_an_end_leaves_the_reward_alone(kind):
    algorithm = make({**DQN, **kind}, MEMORY, net={"optim_spec": {"name": "Adam", "lr": 0.05}})
    add(algorithm.memory, 0.0, 0, 1.0, 0.0, terminated=True)
    for _ in range(300):
        algorithm.update(1)
    out = algorithm.net(torch.zeros(1, 1))[0].view(1, 2, -1)
    assert_close(algorithm.value.q(out)[0, 0], torch.tensor(1.0), atol=0.02, rtol=0)
    if kind is C51:
        assert_close(functional.softmax(out[0, 0], -1), torch.tensor([0.0, 1.0, 0.0]), atol=0.02, rtol=0)


def noisy(**keys):
    greedy = {"action_policy": "greedy", "explore_var_spec": None}
    algorithm = make({**DQN, **greedy, **keys}, MEMORY, net={"noisy_sigma": 1.0, **SLOW})
    for net in (algorithm.net, algorithm.target_net):
        net.heads[0].weight.data[:], net.heads[0].bias.data[:] = 0.0, torch.tensor([0.0, 0.1])
    return algorithm


def test_noise_explores_for_each_environment_and_step():
    algorithm, obs = noisy(), zeros(1000)
    first, second = algorithm.act(obs, 0), algorithm.act(obs, 0)
    assert 0.3 < first.mean() < 0.7
    assert not np.array_equal(first, second)
    assert algorithm.variables(0) == {"explore_var": 0.0}


def test_without_exploration_there_is_no_noise():
    algorithm = noisy()
    add(algorithm.memory, 0.0, 0, 1.0, 1.0)
    algorithm.act(zeros(2), 0)
    algorithm.update(1)
    action, noise = algorithm.generators["action"], algorithm.generators["noise"]
    before = stream_state(action), stream_state(noise)
    assert algorithm.act(zeros(1000), 0, explore=False).tolist() == [1] * 1000
    assert stream_state(action) == before[0]
    assert torch.equal(stream_state(noise), before[1])


def test_every_gradient_step_has_noise_of_its_own_in_both_nets():
    algorithm = noisy(training_batch_iter=3)
    add(algorithm.memory, 0.0, 0, 1.0, 1.0)
    loss, seen = algorithm.learner.loss, []

    def watched(nets, *batch):
        seen.extend(nets[name].heads[0].noise[1] for name in ("net", "target_net"))
        return loss(nets, *batch)

    algorithm.learner.loss = watched
    algorithm.update(1)
    assert {noise.shape for noise in seen} == {(1, 2)}
    assert len({tuple(noise.flatten().tolist()) for noise in seen}) == 6
