"""What a rollout is learned from must be what was there when it was lived."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.testing import assert_close

from slm_lab.agent.algorithm.base import flatten, minibatches, values, values_and_log_probs
from slm_lab.agent.algorithm.recurrence import HiddenState, from_chunks, in_chunks
from slm_lab.agent.memory import OnPolicyBatchReplay, OnPolicyReplay, Replay
from slm_lab.agent.net import make_net
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.history import History
from slm_lab.env import Step
from slm_lab.spec.net import RecurrentNet

N, CPU = 3, torch.device("cpu")
SPACES = {"obs_space": Box(-9.0, 9.0, (2,), np.float32), "action_space": Discrete(4)}


def net_of(cell="GRU", **keys):
    torch.manual_seed(0)
    spec = RecurrentNet(cell_type=cell, rnn_hidden_size=6, init_fn="orthogonal_", seq_len=4, **keys)
    return ActorCritic(spec, SPACES["obs_space"], SPACES["action_space"])


class Life:
    """Random environments; what policy and value are at every step is found out in the plainest way."""

    def __init__(self, net, seed=0):
        self.net, self.rng = net, np.random.default_rng(seed)
        self.obs = self.rng.normal(size=(N, 2)).astype(np.float32)
        self.state = torch.zeros(N, net.state_size)

    @torch.no_grad()
    def evaluate(self, obs, state):
        """Return log-probabilities and values of observations that follow on `state`, and the state after them."""
        after, none = torch.empty_like(state), torch.zeros(1, len(obs), dtype=torch.bool)
        policy, value = self.net.policy_value(History(torch.from_numpy(obs)[None], none, state, out=after))
        return policy.log_p, value, after

    def step(self):
        """Return (obs, action, step, log-probability, value, value of the true successor) of a vector step."""
        obs, action = self.obs, self.rng.integers(4, size=N)
        ends, fate = self.rng.random(N) < 0.2, self.rng.random(N) < 0.5
        final = self.rng.normal(size=(N, 2)).astype(np.float32)
        self.obs = np.where(ends[:, None], self.rng.normal(size=(N, 2)), final).astype(np.float32)
        step = Step(self.obs, self.rng.normal(size=N).astype(np.float32), ends & fate, ends & ~fate, final)
        log_p, value, self.state = self.evaluate(obs, self.state)
        _, next_value, _ = self.evaluate(final, self.state)
        self.state[torch.from_numpy(ends)] = 0.0
        return obs, action, step, log_p[torch.arange(N), torch.from_numpy(action)], value, next_value


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_a_rollout_is_evaluated_as_it_was_lived(cell, shared):
    net = net_of(cell, shared=shared)
    life, hidden = Life(net), HiddenState(net.state_size, N, 4, CPU)
    memory = OnPolicyBatchReplay(**SPACES, num_envs=N, horizon=12)
    for _ in range(3):
        lived = []
        while not memory.ready:
            obs, action, step, *rest = life.step()
            with torch.inference_mode():
                policy = net.policy(hidden.see(torch.from_numpy(obs)))
            assert_close(policy.log_p[torch.arange(N), torch.from_numpy(action)], rest[0])
            memory.add(obs, action, step)
            hidden.follow(step)
            lived.append(rest)
        batch = hidden.recall(net, memory.sample())
        log_prob, value, next_value = (torch.stack(column) for column in zip(*lived, strict=True))
        assert_close(values_and_log_probs(net, batch), (value, next_value, log_prob))
        assert_close(values(net, batch), (value, next_value))
        assert batch.obs.first.shape == (4, 3 * N)
        assert batch.done.any()


def test_episodes_begin_with_nothing():
    net = net_of()
    life, hidden = Life(net), HiddenState(net.state_size, N, None, CPU)
    memory = OnPolicyReplay(**SPACES, num_envs=N, episodes=3)
    for _ in range(2):
        lived, lengths = {n: [[]] for n in range(N)}, []
        while not memory.ready:
            obs, action, step, *rest = life.step()
            memory.add(obs, action, step)
            for n in range(N):
                lived[n][-1].append([column[n] for column in rest])
                if step.terminated[n] or step.truncated[n]:
                    lengths.append(lived[n][-1])
                    lived[n].append([])
        batch = hidden.recall(net, memory.sample())
        rows = [row for episode in lengths for row in episode]
        log_prob, value, next_value = (torch.stack(column)[:, None] for column in zip(*rows, strict=True))
        assert_close(values_and_log_probs(net, batch), (value, next_value, log_prob))
        life, memory = Life(net, seed=1), OnPolicyReplay(**SPACES, num_envs=N, episodes=3)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_replayed_windows_begin_with_nothing_and_go_on_to_what_followed(cell):
    torch.manual_seed(0)
    spec = RecurrentNet(cell_type=cell, rnn_hidden_size=6, init_fn="orthogonal_", seq_len=4)
    net = make_net(spec, (2,), [4])
    memory = Replay(**SPACES, num_envs=N, max_size=60, batch_size=40, seed=0)
    life, happened = Life(net_of()), {}
    for _ in range(30):
        obs, action, step, *_ = life.step()
        memory.add(obs, action, step)
        for n in range(N):
            happened[obs[n].tobytes()] = step.final_obs[n]
    batch = HiddenState(net.state_size, N, 4, CPU).sample(memory, frame=0)
    (q,), (next_q,) = net(batch.obs), net(batch.next_obs)
    assert len(q) == len(next_q) == len(batch.action) == len(batch.index)
    assert 10 < len(q) <= 40  # 10 windows
    assert batch.obs.first.any()
    none = torch.zeros(1, 1, dtype=torch.bool)
    at = {int(place): i for i, place in enumerate(batch.obs.rows)}
    for window in range(10):
        state = torch.zeros(1, net.state_size)
        for t in range(4):
            obs, place = batch.obs.obs[t, window], t * 10 + window
            state = torch.where(batch.obs.first[t, window], 0.0, state)
            (expected,) = net(History(obs[None, None], none, state, out=state))
            if place not in at:
                continue
            row = at[place]
            assert_close(q[row : row + 1], expected)
            following = torch.from_numpy(happened[obs.numpy().tobytes()])
            if not batch.discount[row]:  # nothing follows
                continue
            assert_close(next_q[row : row + 1], net(History(following[None, None], none, state))[0])


def test_a_net_without_a_state_gets_the_batch_as_it_is():
    memory = Replay(**SPACES, num_envs=N, max_size=60, batch_size=8, seed=0)
    memory.add(*Life(net_of()).step()[:3])
    batch = HiddenState(0, N, None, CPU).sample(memory, frame=0)
    assert isinstance(batch.obs, np.ndarray)
    assert len(batch.obs) == 8


def test_gradients_reach_back_within_a_chunk():
    net, life = net_of(), Life(net_of())
    hidden, memory = HiddenState(net.state_size, N, 4, CPU), OnPolicyBatchReplay(**SPACES, num_envs=N, horizon=8)
    while not memory.ready:
        memory.add(*life.step()[:3])
    batch = hidden.recall(net, memory.sample())
    net.value(batch.obs).sum().backward()
    assert net.critic.body.cell.weight_hh_l0.grad.any()
    assert not batch.obs.state.requires_grad


def test_a_net_without_a_state_gets_its_rollout_as_it_is():
    batch = object()
    assert HiddenState(0, N, None, CPU).recall(torch.nn.Linear(1, 1), batch) is batch


def test_interrupted_episodes_are_forgotten():
    hidden = HiddenState(5, N, 4, CPU)
    before = {name: value.clone() for name, value in hidden.state_dict().items()}
    none = np.zeros(N, bool)
    hidden.see(torch.zeros(N, 2)).out[:] = 1.0
    hidden.follow(Step(None, None, none, none, None))
    assert not hidden.state_dict()["first"].any()
    hidden.reset()
    assert_close(hidden.state_dict(), before)


def test_a_loaded_state_is_a_copy():
    one, other = HiddenState(5, N, 4, CPU), HiddenState(5, N, 4, CPU)
    one.see(torch.zeros(N, 2)).out[:] = 1.0
    other.load_state_dict(one.state_dict())
    assert_close(other.state_dict(), one.state_dict())
    one.see(torch.zeros(N, 2)).out[:] = 2.0
    assert other.state_dict()["state"].tolist() == [[1.0] * 5] * N


def test_chunks_by_hand():
    x = torch.tensor([[t * 10 + n for n in range(2)] for t in range(6)])
    chunks = in_chunks(x, 3)
    assert chunks.tolist() == [[0, 1, 30, 31], [10, 11, 40, 41], [20, 21, 50, 51]]
    assert torch.equal(from_chunks(chunks, 2), x)


def numbered(recurrent):
    """A rollout of 6 steps in 2 environments in which every row is its own number."""
    rows = torch.arange(12.0).view(6, 2)
    if not recurrent:
        return flatten(rows[..., None], rows)
    obs = in_chunks(rows[..., None], 3)
    return flatten(History(obs, torch.zeros(3, 4, dtype=torch.bool), obs[0].clone()), rows)


@pytest.mark.parametrize("at_once", [11, 1000])
def test_minibatches_are_every_row_once_in_random_order(at_once, monkeypatch):
    monkeypatch.setattr("slm_lab.agent.algorithm.base.NUMBERS_AT_ONCE", at_once)  # fewer than all: each by itself
    data = numbered(recurrent=False)
    generator = torch.Generator().manual_seed(0)
    batches = list(minibatches(data, 4, generator))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([number for _, number in batches]), order.float())
    assert all(torch.equal(obs[:, 0], number) for obs, number in batches)
    again = torch.cat([number for _, number in minibatches(data, 4, generator)])
    assert sorted(again.tolist()) == list(range(12))
    assert not torch.equal(again, order.float())


def test_minibatches_leave_images_as_they_lie():
    images = torch.randint(256, (6, 2, 3, 12, 12), dtype=torch.uint8)
    laid_out = images.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (6, 2))
    data = flatten(laid_out, torch.arange(12.0).view(6, 2))
    for obs, number in minibatches(data, 4, torch.Generator().manual_seed(0)):
        assert torch.equal(obs, images.flatten(0, 1)[number.long()])
        assert obs.is_contiguous(memory_format=torch.channels_last)


def test_minibatches_of_sequences_are_whole():
    seen = []
    for history, number in minibatches(numbered(recurrent=True), 6, torch.Generator().manual_seed(0)):
        assert history.first.shape == (3, 2)
        assert torch.equal(history.obs.flatten(), number)
        assert torch.equal(history.state, history.obs[0])
        assert (history.obs.diff(dim=0) == 2).all()  # one step of two environments
        seen += number.tolist()
    assert sorted(seen) == list(range(12))
    assert seen != sorted(seen)
