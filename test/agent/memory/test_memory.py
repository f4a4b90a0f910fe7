import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

from slm_lab.agent.memory import make_memory, memory_nbytes
from slm_lab.env.vec_env import Step
from slm_lab.spec import SpecError, schema

CARTPOLE = {"obs_space": gym.spaces.Box(-5, 5, (4,), np.float32), "action_space": gym.spaces.Discrete(2)}
HALF_CHEETAH = {
    "obs_space": gym.spaces.Box(-np.inf, np.inf, (17,), np.float64),
    "action_space": gym.spaces.Box(-1, 1, (6,), np.float32),
}
PONG = {"obs_space": gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), "action_space": gym.spaces.Discrete(6)}


def replay_spec(max_size):
    return schema.Replay(batch_size=64, max_size=max_size)


CASES = {
    "CartPole": (replay_spec(10_000), CARTPOLE | {"num_envs": 3}),
    "HalfCheetah": (replay_spec(100_000), HALF_CHEETAH | {"num_envs": 1}),
    "Pong": (replay_spec(2000), PONG | {"num_envs": 16, "frame_stack": 4}),
    "CartPole rollout": (schema.OnPolicyBatchReplay(), CARTPOLE | {"num_envs": 4, "horizon": 128}),
    "Pong rollout": (schema.OnPolicyBatchReplay(), PONG | {"num_envs": 8, "horizon": 32}),
    "CartPole elite": (schema.OnPolicyCrossEntropy(), CARTPOLE | {"num_envs": 4, "horizon": 2}),
    "CartPole episodes": (schema.OnPolicyReplay(), CARTPOLE | {"num_envs": 4, "horizon": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_promised_bytes_are_those_that_are_allocated(case):
    spec, where = CASES[case]
    promised = memory_nbytes(spec, **where)
    tracemalloc.start()
    try:
        memory = make_memory(spec, **where)
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert memory.nbytes == promised
    assert promised <= allocated < promised + 20_000, "but for the few arrays of one number per environment"


def test_a_million_atari_transitions_fit_into_seven_and_a_half_gigabytes():
    promised = memory_nbytes(replay_spec(1_000_000), **PONG, num_envs=16, frame_stack=4)
    assert 84 * 84 * 1_000_000 < promised <= 7.5e9


def test_spec_is_obeyed():
    spec = schema.Replay(batch_size=7, max_size=100, use_cer=True)
    memory = make_memory(spec, **CARTPOLE, num_envs=2)
    obs, none = np.zeros((2, 4), np.float32), np.zeros(2, bool)
    for value in range(200):
        memory.add(obs, np.full(2, value), Step(obs, np.zeros(2, np.float32), none, none, obs))
    action = memory.sample().action.tolist()
    assert memory.size == 2 * (50 - 1)
    assert len(action) == 7
    assert action[1:] == [197, 197, 198, 198, 199, 199]
    assert make_memory(schema.OnPolicyBatchReplay(), **CARTPOLE, num_envs=2, horizon=3).horizon == 3
    assert make_memory(schema.OnPolicyReplay(), **CARTPOLE, num_envs=2, horizon=3).episodes == 3
    elite = make_memory(schema.OnPolicyCrossEntropy(cross_entropy=0.7), **CARTPOLE, num_envs=2, horizon=3)
    assert (elite.episodes, elite.cross_entropy) == (3, 0.7)


def test_on_policy_memory_without_horizon_is_an_error():
    with pytest.raises(ValueError, match="OnPolicyReplay needs a horizon"):
        make_memory(schema.OnPolicyReplay(), **CARTPOLE, num_envs=1)


def test_more_than_the_machine_has_is_one_line():
    with pytest.raises(SpecError, match=r"agent\.memory: takes 30,000,000\.0 GB, which this machine has not; make it"):
        make_memory(replay_spec(10**15), **CARTPOLE, num_envs=1)
