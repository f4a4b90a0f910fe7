import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_stream import Stream
from test_rollout import episodes_for, rollout_for, streams
from torch.testing import assert_close

from slm_lab.agent.algorithm.sil import transitions
from slm_lab.agent.memory import Replay, SelfImitationMemory
from slm_lab.experiment.checkpoint import Checkpoints


def memory_for(stream):
    past = Replay(
        obs_space=stream.obs_space,
        action_space=stream.action_space,
        num_envs=1,
        max_size=2000,
        batch_size=4,
        frame_stack=stream.k,
    )
    return SelfImitationMemory(rollout_for(stream, 100), episodes_for(stream, 1), past)


def remember(memory):
    """Take in what has finished, with the rewards as returns."""
    episodes = memory.finished()
    if episodes is not None:
        for row in transitions(episodes, episodes.reward):
            memory.past.add(*row)


@settings(max_examples=40, deadline=None)
@given(stream=streams, every=st.integers(1, 7))
def test_the_past_is_every_step_of_every_finished_episode(stream, every):
    memory = memory_for(stream)
    for step in range(40):
        memory.add(*stream.step())
        if step % every == 0:
            remember(memory)
    remember(memory)
    finished = set()
    for order in stream.order:
        ends = [t for t, obs in enumerate(order) if stream.happened[obs].done]
        finished |= set(order[: ends[-1] + 1]) if ends else set()
    batch = memory.past.batch(np.flatnonzero(memory.past.valid))
    assert {obs.tobytes() for obs in batch.obs} == finished
    assert len(batch.obs) == len(finished)
    for obs, action, reward, next_obs in zip(batch.obs, batch.action, batch.reward, batch.next_obs, strict=True):
        true = stream.happened[obs.tobytes()]
        assert (action, reward) == (true.action, np.float32(true.reward))
        assert next_obs.tobytes() == true.next_obs


def test_saved_and_loaded_memory_goes_on_exactly(tmp_path):
    stream = Stream(num_envs=3, end_rate=0.2, seed=5)
    memory, again = memory_for(stream), memory_for(stream)
    for step in range(35):
        memory.add(*stream.step())
        if step == 20:
            remember(memory)
    checkpoints = Checkpoints(tmp_path, "c", keep=1)
    checkpoints.save(1, {"memory": memory.state_dict()})
    again.load_state_dict(checkpoints.load()[1]["memory"])
    for _ in range(20):
        transition = stream.step()
        for one in (memory, again):
            one.add(*transition)
            remember(one)
        assert_close(memory.past.sample(), again.past.sample(), rtol=0, atol=0)
