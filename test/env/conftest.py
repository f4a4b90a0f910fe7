import json

import numpy as np
import pytest

from slm_lab.env import make_env
from slm_lab.spec import EnvSpec


def spec(name, **keys):
    return EnvSpec(**{"name": name, "max_frame": 1000, **keys})


def round_trip(tree):
    """What a file makes of a state: arrays as they are, the rest through JSON."""
    if isinstance(tree, dict):
        return {key: round_trip(value) for key, value in tree.items()}
    return tree.copy() if isinstance(tree, np.ndarray) else json.loads(json.dumps(tree))


def same_tree(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tree(left[key], right[key]) for key in left)
    return np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right


def random_actions(env, steps, seed=0):
    env.action_space.seed(seed)
    return [np.array([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(steps)]


def same_step(left, right):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


def assert_steps_stay(env):
    """What `reset` and `step` return is not written to by later steps."""
    steps = [env.reset(), *(array for action in random_actions(env, 60) for array in env.step(action))]
    kept = [array.copy() for array in steps]
    for action in random_actions(env, 60, seed=1):
        env.step(action)
    assert all(np.array_equal(array, copy) for array, copy in zip(steps, kept, strict=True))


@pytest.fixture
def build():
    """make_env(spec(name, **keys), seed, **how), closed at the end."""
    built = []

    def make(name, seed=0, *, how=None, **keys):
        built.append(make_env(spec(name, **keys), seed, **(how or {})))
        return built[-1]

    yield make
    for env in built:
        env.close()
