import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_stream import Stream

from slm_lab.agent.memory.rollout import OnPolicyBatchReplay, OnPolicyCrossEntropy, OnPolicyReplay
from slm_lab.experiment.checkpoint import Checkpoints

streams = st.builds(
    Stream,
    num_envs=st.integers(1, 4),
    frame_stack=st.sampled_from([1, 4]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    end_rate=st.sampled_from([0.05, 0.3, 1.0]),
    seed=st.integers(0, 2**32),
)


class Episodes(OnPolicyReplay):
    FIRST_ROWS = 4  # so that it has to grow


def rollout_for(stream, horizon=5, **keys):
    spaces = {"obs_space": stream.obs_space, "action_space": stream.action_space}
    return OnPolicyBatchReplay(**spaces, num_envs=stream.num_envs, horizon=horizon, **keys)


def episodes_for(stream, episodes=2, **keys):
    spaces = {"obs_space": stream.obs_space, "action_space": stream.action_space}
    return Episodes(**spaces, num_envs=stream.num_envs, episodes=episodes, **keys)


def elite_for(stream, episodes=3, cross_entropy=0.5):
    return OnPolicyCrossEntropy(
        obs_space=stream.obs_space,
        action_space=stream.action_space,
        num_envs=stream.num_envs,
        episodes=episodes,
        cross_entropy=cross_entropy,
    )


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def assert_row(batch, t, n, true):
    assert batch.action[t, n] == true.action
    assert batch.reward[t, n] == np.float32(true.reward)
    assert batch.terminated[t, n] == true.terminated
    assert batch.done[t, n] == true.done


@settings(max_examples=60, deadline=None)
@given(stream=streams, horizon=st.integers(1, 12))
def test_rollout_is_what_happened(stream, horizon):
    memory = rollout_for(stream, horizon)
    for rollout in range(3):
        for _ in range(horizon):
            assert not memory.ready
            transition = stream.step()
            memory.add(*transition)
        assert memory.ready
        batch = memory.sample()
        finals = dict(zip(batch.ended.tolist(), batch.final_obs, strict=True))
        for t in range(horizon):
            for n in range(stream.num_envs):
                obs = batch.obs[t, n].numpy().tobytes()
                assert obs == stream.order[n][rollout * horizon + t]
                assert_row(batch, t, n, stream.happened[obs])
                if stream.happened[obs].done:
                    assert finals.pop(t * stream.num_envs + n).numpy().tobytes() == stream.happened[obs].next_obs
        assert not finals
        assert batch.ended.tolist() == sorted(batch.ended.tolist())
        assert np.array_equal(batch.last_obs.numpy(), transition[2].obs)


@settings(max_examples=60, deadline=None)
@given(stream=streams, count=st.integers(1, 4))
def test_whole_episodes_are_handed_out_in_the_order_of_finishing(stream, count):
    memory = episodes_for(stream, count)
    under_way = [[] for _ in range(stream.num_envs)]
    finished = []
    for _ in range(60):
        assert not memory.ready
        memory.add(*stream.step())
        for env, episode in enumerate(under_way):
            episode.append(stream.order[env][-1])
            if stream.happened[episode[-1]].done:
                finished.append(list(episode))
                episode.clear()
        assert memory.ready == (len(finished) >= count)
        if not memory.ready:
            continue
        batch = memory.sample()
        expected = [obs for episode in finished for obs in episode]
        assert batch.obs.shape[:2] == (len(expected), 1)
        for t, obs in enumerate(expected):
            assert batch.obs[t, 0].numpy().tobytes() == obs
            assert_row(batch, t, 0, stream.happened[obs])
        assert batch.ended.tolist() == (np.cumsum([len(episode) for episode in finished]) - 1).tolist()
        final = [stream.happened[episode[-1]].next_obs for episode in finished]
        assert [obs.numpy().tobytes() for obs in batch.final_obs] == final
        assert [obs.numpy().tobytes() for obs in batch.last_obs] == final[-1:]
        finished.clear()


@settings(max_examples=30, deadline=None)
@given(stream=streams, before=st.integers(0, 30), make=st.sampled_from([rollout_for, episodes_for, elite_for]))
def test_saved_and_loaded_memory_goes_on_exactly(tmp_path_factory, stream, before, make):
    memory = make(stream)
    for _ in range(before):
        if memory.ready:
            memory.sample()
        memory.add(*stream.step())
    checkpoints = Checkpoints(tmp_path_factory.mktemp("rollout"), "c", keep=1)
    checkpoints.save(1, {"memory": memory.state_dict()})
    again = make(stream)
    saved = checkpoints.load()
    assert saved is not None
    again.load_state_dict(saved[1]["memory"])
    for _ in range(20):
        assert memory.ready == again.ready
        if memory.ready:
            assert_same(memory.sample(), again.sample())
        transition = stream.step()
        memory.add(*transition)
        again.add(*transition)


def test_observations_keep_their_dtype_but_for_float64():
    for given_dtype, kept in ((np.uint8, torch.uint8), (np.float64, torch.float32)):
        stream = Stream(dtype=given_dtype, end_rate=1.0)
        memory = rollout_for(stream, horizon=1)
        memory.add(*stream.step())
        batch = memory.sample()
        assert {batch.obs.dtype, batch.last_obs.dtype, batch.final_obs.dtype} == {kept}


@pytest.mark.parametrize("convolved", [True, False])  # other nets may want views of them
@pytest.mark.parametrize("make", [rollout_for, episodes_for])
def test_images_lie_as_convolutions_on_a_cpu_want_them(make, convolved):
    stream = Stream(num_envs=2, frame_stack=4, dtype=np.uint8, end_rate=0.1)
    memory = make(stream, convolved=convolved)
    while not memory.ready or memory.state_dict()["obs"].shape[0] < 5:  # the one for episodes has grown
        memory.add(*stream.step())
    layout = torch.channels_last if convolved else torch.contiguous_format
    assert memory.sample().obs.flatten(0, 1).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("make", [rollout_for, episodes_for])
def test_incomplete_batch_is_refused(make):
    stream = Stream(end_rate=0.0)
    memory = make(stream)
    memory.add(*stream.step())
    with pytest.raises(ValueError, match=r"1 of its 5 steps|0 of 2 episodes"):
        memory.sample()


def test_state_of_another_horizon_is_refused():
    stream = Stream()
    with pytest.raises(ValueError, match="horizon 5, and the saved one 6"):
        rollout_for(stream, 5).load_state_dict(rollout_for(stream, 6).state_dict())


def test_memory_of_whole_episodes_stays_as_small_as_what_is_under_way():
    stream = Stream(num_envs=2, end_rate=0.3, seed=4)
    memory = episodes_for(stream, 1)
    for _ in range(500):
        memory.add(*stream.step())
        if memory.ready:
            memory.sample()
    assert len(memory.state_dict()["obs"]) < 30


def returns_of(batch):
    """The return of each episode of a batch, in float64: returns that nearly tie keep their order."""
    first = [0, *(batch.ended + 1).tolist()[:-1]]
    return [batch.reward[start : end + 1].double().sum().item() for start, end in zip(first, batch.ended, strict=True)]


@settings(max_examples=60, deadline=None)
@given(stream=streams, count=st.integers(1, 6), cross_entropy=st.sampled_from([0.0, 0.3, 0.75, 1.0]))
def test_only_the_best_episodes_are_handed_out(stream, count, cross_entropy):
    every, elite = episodes_for(stream, count), elite_for(stream, count, cross_entropy)
    for _ in range(40):
        transition = stream.step()
        every.add(*transition)
        elite.add(*transition)
        assert elite.ready == every.ready
        if not every.ready:
            continue
        whole, best = every.sample(), elite.sample()
        returns = returns_of(whole)
        least = np.quantile(returns, cross_entropy)
        kept = [episode for episode, total in enumerate(returns) if total >= least]
        rows = [
            row
            for row, episode in enumerate(np.searchsorted(whole.ended.numpy(), range(len(whole.obs))))
            if episode in kept
        ]
        for name in ("obs", "action", "reward", "terminated", "done"):
            assert torch.equal(getattr(best, name), getattr(whole, name)[rows]), name
        assert best.ended.tolist() == best.done[:, 0].nonzero().flatten().tolist()
        assert torch.equal(best.final_obs, whole.final_obs[kept])
        assert torch.equal(best.last_obs, best.final_obs[-1:])
        assert max(returns_of(best)) == max(returns)
