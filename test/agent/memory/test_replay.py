from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_stream import Stream
from torch.testing import assert_close

from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.learner import as_tensors
from slm_lab.env import make_env
from slm_lab.env.vec_env import Step
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.spec import EnvSpec, SpecError

streams = st.builds(
    Stream,
    num_envs=st.integers(1, 4),
    frame_stack=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    end_rate=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    pad_zeros=st.booleans(),
    seed=st.integers(0, 2**32),
)


def replay_for(stream, rows=20, **kwargs):
    return Replay(
        **{
            "obs_space": stream.obs_space,
            "action_space": stream.action_space,
            "num_envs": stream.num_envs,
            "max_size": rows * stream.num_envs,
            "batch_size": 32,
            "frame_stack": stream.k,
        }
        | kwargs
    )


def fill(memory, stream, steps):
    for _ in range(steps):
        memory.add(*stream.step())


def assert_happened(batch, stream):
    for obs, action, reward, discount, next_obs, *_ in zip(*batch, strict=True):
        true = stream.happened[obs.tobytes()]
        assert (int(action), float(reward), float(discount)) == (true.action, true.reward, 1.0 - true.terminated)
        assert next_obs.tobytes() == true.next_obs


def assert_same(one, other):
    assert_close(one, other, rtol=0, atol=0)


@settings(max_examples=150, deadline=None)
@given(stream=streams, steps=st.integers(1, 60), extra_rows=st.integers(0, 12), use_cer=st.booleans())
def test_every_sampled_transition_happened(stream, steps, extra_rows, use_cer):
    memory = replay_for(stream, rows=stream.k + 1 + extra_rows, use_cer=use_cer)
    for _ in range(steps):
        memory.add(*stream.step())
        if memory.size and stream.rng.random() < 0.5:
            assert_happened(memory.sample(8), stream)


@settings(max_examples=150, deadline=None)
@given(stream=streams, steps=st.integers(1, 60), extra_rows=st.integers(0, 40))
def test_all_that_fits_is_kept(stream, steps, extra_rows):
    """A transition is there exactly as long as the oldest frame of its window has not been overwritten."""
    rows = stream.k + 1 + extra_rows
    memory = replay_for(stream, rows=rows)
    fill(memory, stream, steps)
    # a reset after the last step is part of the stream and not yet of the memory
    newest = {e: stream.happened[stream.order[e][-1]].row + 1 for e in range(stream.num_envs)}
    kept = {obs for obs, t in stream.happened.items() if t.row - (stream.k - 1) > newest[t.env] - rows}
    held = memory.batch(np.flatnonzero(memory.valid))
    assert_happened(held, stream)
    assert {obs.tobytes() for obs in held.obs} == kept
    assert memory.size == len(held.obs) == len(kept)


@settings(max_examples=100, deadline=None)
@given(
    stream=streams,
    steps=st.integers(1, 60),
    extra_rows=st.integers(0, 12),
    length=st.integers(1, 6),
    num_steps=st.integers(1, 3),
)
def test_windows_show_what_came_one_after_another(stream, steps, extra_rows, length, num_steps):
    memory = replay_for(stream, rows=stream.k + 1 + extra_rows, gamma=0.5, num_steps=num_steps)
    fill(memory, stream, steps)
    if not memory.size:
        return
    drawn = memory.sample(5).index
    windows = memory.windows(drawn, length)
    assert windows.obs.shape == (length + num_steps, 5, *stream.obs_space.shape)
    shown, first = windows.obs.flatten(0, 1), windows.first.flatten()
    # the transitions are those of the rows from each that was drawn on, each once
    rows = (drawn + np.arange(length)[:, None] * stream.num_envs) % memory.capacity
    valid = memory.valid[rows].flatten()
    assert_same(windows.place.numpy(), np.flatnonzero(valid))
    assert_same(windows.index, rows.flatten()[valid])
    expected = memory.batch(windows.index)
    assert_same(
        (shown[windows.place], windows.action, windows.reward, windows.discount, shown[windows.next_place]),
        as_tensors(expected[:5]),
    )
    # what stands before a row without a beginning is what came before it
    places = set(windows.place.tolist())
    for place in windows.place.tolist():
        if place >= 5 and not first[place]:
            assert place - 5 in places
            true = stream.happened[shown[place - 5].numpy().tobytes()]
            assert not true.done
            assert true.next_obs == shown[place].numpy().tobytes()
        for later in range(place + 5, windows.next_place[windows.place.tolist().index(place)] + 1, 5):
            assert not first[later] or stream.happened[shown[later - 5].numpy().tobytes()].terminated


def test_every_valid_transition_is_equally_likely():
    stream = Stream(num_envs=3, frame_stack=2, end_rate=0.2, seed=5)
    memory = replay_for(stream, rows=40, seed=1)
    fill(memory, stream, 100)
    draws = 400 * memory.size
    count = np.bincount(memory.sample(draws).index, minlength=memory.capacity)
    assert (count[~memory.valid] == 0).all()
    chi_square = ((count[memory.valid] - 400) ** 2 / 400).sum()
    freedom = memory.size - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("steps", [3, 30])
def test_sampling_reaches_every_transition(steps):
    stream = Stream(num_envs=2, frame_stack=4, end_rate=0.4, seed=2)
    memory = replay_for(stream, rows=25)
    fill(memory, stream, steps)
    assert set(memory.sample(4000).index.tolist()) == set(np.flatnonzero(memory.valid).tolist())


def counting_step(value, shape=(1,), *, terminated=False, truncated=False, then=None):
    """A step of one environment to the observation `value`; after its end, on to the observation `then`."""
    final = np.full((1, *shape), value, np.float32)
    obs = final if then is None else np.full((1, *shape), then, np.float32)
    return Step(obs, np.ones(1, np.float32), np.array([terminated]), np.array([truncated]), final)


def scalar_replay(max_size=10, **kwargs):
    space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    return Replay(
        obs_space=space, action_space=gym.spaces.Discrete(9), num_envs=1, max_size=max_size, batch_size=4, **kwargs
    )


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_next_obs_is_the_true_one_at_the_end_of_an_episode(end):
    memory = scalar_replay()
    for obs, step in [(0, counting_step(1)), (1, counting_step(2, **{end: True}, then=50)), (50, counting_step(51))]:
        memory.add(np.full((1, 1), obs, np.float32), np.array([obs % 9]), step)
    held = memory.batch(np.flatnonzero(memory.valid))
    assert held.obs[:, 0].tolist() == [0, 1, 50]
    assert held.next_obs[:, 0].tolist() == [1, 2, 51]
    assert held.discount.tolist() == [1.0, 0.0 if end == "terminated" else 1.0, 1.0]
    assert held.action.tolist() == [0, 1, 5]


def test_lost_life_costs_no_rows_but_the_end_of_an_episode_does():
    def rows_taken(**end):
        memory = scalar_replay(max_size=4)
        memory.add(np.zeros((1, 1), np.float32), np.zeros(1, int), counting_step(1, **end))
        memory.add(np.ones((1, 1), np.float32), np.zeros(1, int), counting_step(2))
        memory.add(np.full((1, 1), 2, np.float32), np.zeros(1, int), counting_step(3))
        return 4 - memory.size

    assert rows_taken(terminated=True) == 1  # 0 1 2 3: three transitions in four rows
    # After a truncation rows that follow one another must not span two episodes, even if one begins where the other
    # ended: 0 1 1 2 3, of which the first is overwritten.
    assert rows_taken(truncated=True) == 2


def test_padding_of_the_first_window_comes_back_exact():
    space = gym.spaces.Box(0, 255, (4, 2, 2), np.uint8)
    memory = Replay(
        obs_space=space, action_space=gym.spaces.Discrete(2), num_envs=1, max_size=20, batch_size=1, frame_stack=4
    )
    first = np.array([9, 0, 7, 1], np.uint8).repeat(4).reshape(1, 4, 2, 2)  # no convention at all
    second = np.array([0, 7, 1, 5], np.uint8).repeat(4).reshape(1, 4, 2, 2)
    none = np.zeros(1, bool)
    memory.add(first, np.zeros(1, int), Step(second, np.ones(1, np.float32), none, none, second))
    batch = memory.sample()
    assert np.array_equal(batch.obs, first)
    assert np.array_equal(batch.next_obs, second)


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [(np.uint8, np.uint8), (np.float32, np.float32), (np.float64, np.float32), (np.int64, np.int64)],
)
def test_observations_keep_their_dtype(given_dtype, kept):
    stream = Stream(dtype=given_dtype)
    memory = replay_for(stream)
    fill(memory, stream, 3)
    assert memory.sample().obs.dtype == kept


def test_observation_that_its_space_cannot_hold_is_an_error():
    stream = Stream(dtype=np.uint8)
    memory = replay_for(stream)
    obs, action, step = stream.step()
    with pytest.raises(TypeError, match="float32"):
        memory.add(obs.astype(np.float32) / 255, action, step)


def test_continuous_and_multiple_actions_come_back():
    for space in (gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.MultiDiscrete([3, 4])):
        stream = Stream(num_envs=2)
        memory = replay_for(stream, action_space=space)
        obs, _, step = stream.step()
        action = np.stack([space.sample(), space.sample()])
        memory.add(obs, action, step)
        assert np.array_equal(memory.batch(np.arange(2)).action, action)


def test_combined_experience_replay_ends_the_batch_with_what_is_new():
    stream = Stream(num_envs=2, end_rate=0.3, seed=3)
    memory = replay_for(stream, rows=50, use_cer=True)
    fill(memory, stream, 30)
    memory.sample(8)
    fill(memory, stream, 3)
    newest = [stream.order[env][-age] for age in (3, 2, 1) for env in (0, 1)]
    assert [obs.tobytes() for obs in memory.sample(8).obs][2:] == newest
    assert [obs.tobytes() for obs in memory.sample(8).obs][2:] != newest, "they are new only once"
    fill(memory, stream, 9)
    newest = [stream.order[env][-age] for age in (2, 1) for env in (0, 1)]
    assert [obs.tobytes() for obs in memory.sample(4).obs] == newest, "no more than the batch holds"


@settings(max_examples=30, deadline=None)
@given(stream=streams, before=st.integers(1, 50), use_cer=st.booleans())
def test_saved_and_loaded_memory_goes_on_exactly(tmp_path_factory, stream, before, use_cer):
    memory = replay_for(stream, seed=3, use_cer=use_cer)
    for step in range(before):
        memory.add(*stream.step())
        if step % 3 == 0:
            memory.sample(2)
    checkpoints = Checkpoints(tmp_path_factory.mktemp("replay"), "c", keep=1)
    checkpoints.save(1, {"memory": memory.state_dict()})
    again = replay_for(stream, seed=99, use_cer=use_cer)
    fill(again, Stream(num_envs=stream.num_envs, frame_stack=stream.k, dtype=stream.dtype, seed=8), 7)
    saved = checkpoints.load()
    assert saved is not None
    again.load_state_dict(saved[1]["memory"])
    for _ in range(30):
        transition = stream.step()
        memory.add(*transition)
        again.add(*transition)
        assert memory.size == again.size
        assert_same(memory.sample(8), again.sample(8))


def test_only_what_is_filled_is_saved():
    stream = Stream(num_envs=2, end_rate=0.0)
    memory = replay_for(stream, rows=1000)
    fill(memory, stream, 10)
    assert memory.state_dict()["frame"].shape == (2 * 11, 4)


def test_state_of_other_sizes_is_refused():
    stream = Stream(num_envs=2)
    state = replay_for(stream, rows=10).state_dict()
    with pytest.raises(ValueError, match="capacity 40, and the saved one 20"):
        replay_for(stream, rows=20).load_state_dict(state)


def test_same_seed_same_samples_and_another_seed_others():
    def indices(seed):
        stream = Stream(seed=1)
        memory = replay_for(stream, seed=seed)
        fill(memory, stream, 15)
        return memory.sample(64).index.tolist()

    assert indices(1) == indices(1) != indices(2)


def test_sampling_from_nothing_is_an_error():
    with pytest.raises(ValueError, match="no transition yet"):
        replay_for(Stream()).sample()


def test_room_for_no_transition_is_a_spec_error():
    with pytest.raises(SpecError, match=r"agent.memory.max_size: 8 is too little for 2 environments .* at least 10"):
        replay_for(Stream(num_envs=2, frame_stack=4), rows=4)


@pytest.mark.parametrize(("name", "steps"), [("CartPole-v1", 100), ("ALE/Breakout-v5", 400)])
def test_transitions_of_a_real_environment_come_back(name, steps):
    """Breakout shows the same picture again and again: there, only how often something happened can be compared."""
    env = make_env(EnvSpec(name=name, num_envs=2, max_frame=1000), seed=0)
    space = env.obs_space, env.action_space
    memory = Replay(
        obs_space=space[0],
        action_space=space[1],
        num_envs=2,
        max_size=1000,
        batch_size=1,
        frame_stack=env.frame_stack,
    )
    rng = np.random.default_rng(0)
    obs, happened, ended = env.reset(), Counter(), 0
    for _ in range(steps):
        action = rng.integers(space[1].n, size=2)
        step = env.step(action)
        memory.add(obs, action, step)
        for n in range(2):
            happened[transition(obs[n], action[n], step.reward[n], 1 - step.terminated[n], step.final_obs[n])] += 1
        ended += (step.terminated | step.truncated).sum()
        obs = step.obs
    env.close()
    held = memory.batch(np.flatnonzero(memory.valid))
    assert ended > 1
    assert Counter(transition(*row[:5]) for row in zip(*held, strict=True)) == happened


def transition(obs, action, reward, discount, next_obs):
    return obs.tobytes(), int(action), float(reward), float(discount), next_obs.tobytes()


N_STEPS = [  # rewards 1 2 3 4 5, gamma 0.5, three steps on: from each step its return, discount, next observation
    ({}, [1 + 1 + 0.75, 2 + 1.5 + 1, 3 + 2 + 1.25, 4 + 2.5, 5], [0.125, 0.125, 0.125, 0.25, 0.5], [3, 4, 5, 5, 5]),
    ({2: "terminated"}, [2.75, 3.5, 3, 4 + 2.5, 5], [0, 0, 0, 0.25, 0.5], [3, 3, 3, 5, 5]),
    ({2: "truncated"}, [2.75, 3.5, 3, 4 + 2.5, 5], [0.125, 0.25, 0.5, 0.25, 0.5], [3, 3, 3, 5, 5]),
]


@pytest.mark.parametrize(("ends", "returns", "discounts", "next_obs"), N_STEPS)
def test_n_steps_by_hand(ends, returns, discounts, next_obs):
    memory = scalar_replay(max_size=20, gamma=0.5, num_steps=3)
    for i in range(5):
        end = {ends[i]: True, "then": i + 1} if i in ends else {}
        step = counting_step(i + 1, **end)._replace(reward=np.array([i + 1], np.float32))
        memory.add(np.full((1, 1), i, np.float32), np.array([i]), step)
    held = memory.batch(np.flatnonzero(memory.valid))
    assert held.obs[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert held.reward.tolist() == returns
    assert held.discount.tolist() == discounts
    assert held.next_obs[:, 0].tolist() == next_obs
