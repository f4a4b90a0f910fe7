import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_stream import Stream
from torch.testing import assert_close

from slm_lab.agent.memory import PrioritizedReplay, Replay, make_memory, memory_nbytes
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.spec import schema

streams = st.builds(
    Stream,
    num_envs=st.integers(1, 4),
    frame_stack=st.sampled_from([1, 2, 4]),
    end_rate=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 2**32),
)


def replay_for(stream, rows=20, kind=PrioritizedReplay, beta=0.5, **kwargs):
    own = {"alpha": 0.5, "epsilon": 0.01, "beta": lambda _frame: beta} if kind is PrioritizedReplay else {}
    return kind(
        **{
            "obs_space": stream.obs_space,
            "action_space": stream.action_space,
            "num_envs": stream.num_envs,
            "max_size": rows * stream.num_envs,
            "batch_size": 16,
            "frame_stack": stream.k,
        }
        | own
        | kwargs
    )


def fill(memory, stream, steps):
    for _ in range(steps):
        memory.add(*stream.step())


def steady(rows=20, steps=9, **kwargs):
    """A memory of one environment whose episode never ends: `steps` transitions, at the rows from 0 on."""
    stream = Stream(end_rate=0.0)
    memory = replay_for(stream, rows, **kwargs)
    fill(memory, stream, steps)
    return memory


def set_errors(memory, errors):
    memory.sample()  # what has been added is put into the tree
    memory.update_priorities(np.arange(len(errors)), torch.tensor(errors))


@settings(max_examples=150, deadline=None)
@given(
    stream=streams,
    steps=st.integers(1, 60),
    extra_rows=st.integers(0, 12),
    num_steps=st.integers(1, 3),
    use_cer=st.booleans(),
    unsorted=st.sampled_from([1, 5, 1024]),
)
def test_every_sampled_transition_happened(stream, steps, extra_rows, num_steps, use_cer, unsorted):
    """Whatever is overwritten, whenever samples are drawn and errors come in, also late and of rows long gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slm_lab.agent.memory.prioritized.UNSORTED", unsorted)
        rows = stream.k + 1 + extra_rows
        memory = replay_for(stream, rows, num_steps=num_steps, use_cer=use_cer, gamma=0.5)
        uniform = replay_for(stream, rows, kind=Replay, num_steps=num_steps, gamma=0.5)
        late = None
        for _ in range(steps):
            transition = stream.step()
            memory.add(*transition)
            uniform.add(*transition)
            if memory.size and stream.rng.random() < 0.5:
                batch = memory.sample(8)
                assert memory.valid[batch.index].all()
                for obs, action in zip(batch.obs, batch.action, strict=True):
                    assert stream.happened[obs.tobytes()].action == action
                assert_close(batch[:5], uniform.batch(batch.index)[:5], rtol=0, atol=0)
                error = torch.from_numpy(stream.rng.exponential(size=8))
                memory.update_priorities(batch.index if late is None else late, error)
                late = batch.index if stream.rng.random() < 0.3 else None
        assert np.array_equal(memory.valid, uniform.valid)
        if memory.size:
            memory.sample(1)
            assert np.array_equal(memory.tree.leaves > 0, memory.valid)


def test_transitions_come_in_proportion_to_their_priorities():
    memory = steady(steps=4, alpha=2.0, epsilon=0.5)
    set_errors(memory, [0.5, -1.5, 0.0, 2.5])  # (1, 2, 0.5, 3)^2 of 14.25
    draws = 142_500
    count = np.bincount(memory.sample(draws).index, minlength=4)
    assert count == pytest.approx(np.array([1, 4, 0.25, 9]) / 14.25 * draws, abs=2), "stratified: nearly exact"


def test_one_transition_of_each_stratum_in_random_order():
    memory = steady(steps=16)
    first, second = (memory.sample(16).index.tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second != list(range(16))


def test_new_transitions_have_the_largest_priority_so_far():
    stream = Stream(end_rate=0.0)
    memory = replay_for(stream, alpha=1.0, epsilon=0.01)
    fill(memory, stream, 2)
    memory.sample()
    assert memory.tree.leaves[:3].tolist() == [1, 1, 0]
    memory.update_priorities(np.array([0, 1]), torch.tensor([5.0, 0.25]))
    fill(memory, stream, 1)
    memory.update_priorities(np.array([0]), torch.tensor([2.0]))
    memory.sample()
    assert memory.tree.leaves[:4].tolist() == pytest.approx([2.01, 0.26, 5.01, 0])


def test_weights_by_hand():
    memory = steady(steps=3, alpha=1.0, epsilon=1e-9, beta=0.5)
    set_errors(memory, [1.0, 4.0, 5.0])
    batch = memory.sample(10)
    # P = 0.1, 0.4, 0.5, so (3 P)^-0.5 is in proportion to 1, 1/2, 1/sqrt 5, and all three are in ten strata
    assert sorted(batch.index.tolist()) == [0] + 4 * [1] + 5 * [2]
    assert batch.weight.dtype == np.float32
    assert batch.weight.tolist() == pytest.approx([[1, 0.5, 5**-0.5][i] for i in batch.index])


def test_weights_follow_beta():
    memory = steady(steps=2, alpha=1.0, epsilon=1e-9, beta=0)
    memory.beta = lambda frame: frame / 100
    set_errors(memory, [1.0, 3.0])
    for frame, least in ((0, 1.0), (50, 3**-0.5), (100, 1 / 3)):
        assert memory.sample(8, frame).weight.min().item() == pytest.approx(least)


def test_without_alpha_it_is_uniform():
    memory = steady(steps=4, alpha=0.0)
    set_errors(memory, [0.0, 1.0, 10.0, 100.0])
    batch = memory.sample(400)
    assert np.bincount(batch.index).tolist() == [100] * 4
    assert batch.weight.tolist() == [1.0] * 400


def test_combined_experience_replay_takes_the_place_of_any():
    memory = steady(rows=100, steps=60, use_cer=True, batch_size=60)
    memory.sample()
    fill(memory, Stream(end_rate=0.0), 10)
    batches = [memory.sample().index.tolist()]
    assert batches[0][-10:] == list(range(60, 70))
    memory._fresh.extend(np.array([row]) for row in range(60, 70))
    batches.append(memory.sample().index.tolist())
    assert set(batches[0][:-10]) != set(batches[1][:-10]), "not always the same strata are displaced"


@settings(max_examples=30, deadline=None)
@given(stream=streams, before=st.integers(1, 50), use_cer=st.booleans())
def test_saved_and_loaded_memory_goes_on_exactly(tmp_path_factory, stream, before, use_cer):
    def learn(memory, seed):
        batch = memory.sample(8)
        memory.update_priorities(batch.index, torch.from_numpy(np.random.default_rng(seed).exponential(size=8)))
        return batch

    memory = replay_for(stream, seed=3, use_cer=use_cer)
    for step in range(before):
        memory.add(*stream.step())
        if step % 3 == 0:
            learn(memory, step)
    checkpoints = Checkpoints(tmp_path_factory.mktemp("replay"), "c", keep=1)
    checkpoints.save(1, {"memory": memory.state_dict()})
    again = replay_for(stream, seed=99, use_cer=use_cer)
    other = Stream(num_envs=stream.num_envs, frame_stack=stream.k, dtype=stream.dtype, seed=8)
    fill(again, other, 7)
    learn(again, 0)
    fill(again, other, 1)
    saved = checkpoints.load()
    assert saved is not None
    again.load_state_dict(saved[1]["memory"])
    for seed in range(30):
        transition = stream.step()
        memory.add(*transition)
        again.add(*transition)
        assert_close(learn(memory, seed), learn(again, seed), rtol=0, atol=0)
    assert np.array_equal(memory.tree.nodes, again.tree.nodes)


def test_priorities_of_a_million_transitions_take_little_memory():
    pong = {"obs_space": gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), "action_space": gym.spaces.Discrete(6)}
    constant = schema.VarSpec(name="no_decay", start_val=1.0)
    sizes = {"batch_size": 32, "max_size": 1_000_000}
    plain = memory_nbytes(schema.Replay(**sizes), **pong, num_envs=16, frame_stack=4)
    prioritised = memory_nbytes(
        schema.PrioritizedReplay(**sizes, beta_spec=constant), **pong, num_envs=16, frame_stack=4
    )
    assert 8e6 < prioritised - plain < 9e6


def test_spec_is_obeyed():
    beta = schema.VarSpec(name="linear_decay", start_val=0.4, end_val=1.0, end_step=100)
    spec = schema.PrioritizedReplay(batch_size=7, max_size=64, alpha=0.3, epsilon=0.2, use_cer=True, beta_spec=beta)
    stream = Stream(num_envs=2, end_rate=0.0)
    spaces = {"obs_space": stream.obs_space, "action_space": stream.action_space, "num_envs": 2}
    memory = make_memory(spec, **spaces)
    fill(memory, stream, 9)
    batch = memory.sample()
    assert len(batch.index) == 7
    assert batch.index[-1] == 17
    assert (memory.alpha, memory.epsilon, memory.beta(0), memory.beta(100)) == (0.3, 0.2, 0.4, 1.0)
    assert memory.nbytes == memory_nbytes(spec, **spaces)


def test_sampling_from_nothing_is_an_error():
    with pytest.raises(ValueError, match="no transition yet"):
        replay_for(Stream()).sample()
