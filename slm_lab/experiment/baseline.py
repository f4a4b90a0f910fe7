"""The random baseline: the mean return of a policy that knows nothing, which strength is measured from."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from slm_lab.lib.files import read_json, write_json

if TYPE_CHECKING:
    from slm_lab.spec import EnvSpec

SHIPPED = Path(__file__).parents[1] / "spec" / "_random_baseline.json"
STORE = "random_baseline.json"
EPISODES = 100
MAX_STEPS = 100_000
MAX_SECONDS = 10.0


def random_baseline(env: "EnvSpec", data_dir: str | Path) -> float:
    """Return the mean return of a random policy, as the environment itself scores it.

    Looked up in the shipped table, whose figures published scores rest on, then in `data_dir/random_baseline.json`;
    played once and stored there if in neither. What cannot be played counts as 0, with a warning.

    Args:
        env: of which the name, the keyword arguments and the wrappers count, as each may make another task of it. It is
            played to its own time limit, whatever `max_t` says: so are the figures of the table.
        data_dir: folder of the runs.
    """
    key = baseline_key(env.name, env.kwargs | ({"wrappers": env.wrappers} if env.wrappers else {}))
    known = stored_baseline(key, data_dir)
    if known is not None:
        return known
    try:
        value = _play(env)
    except Exception as error:  # whatever an environment may raise; the scores stay comparable among themselves
        logger.warning("no random baseline for {}, taken as 0: {}", key, error)
        return 0.0
    store = Path(data_dir) / STORE
    store.parent.mkdir(parents=True, exist_ok=True)
    write_json(store, dict(sorted({**_table(store), key: value}.items())))
    return value


def baseline_key(name: str, kwargs: Mapping[str, Any]) -> str:
    """Return the key of an environment in the tables: its name, and what makes another task of it if anything does."""
    return f"{name} {json.dumps(kwargs, sort_keys=True, default=str)}" if kwargs else name


def stored_baseline(key: str, data_dir: str | Path) -> float | None:
    """Look a baseline up without playing; None where it is in no table."""
    value = _table(SHIPPED).get(key, _table(Path(data_dir) / STORE).get(key))
    return None if value is None else float(value)


def _table(file: Path) -> dict[str, float]:
    try:
        table = read_json(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("{}: not readable, so not used: {}", file, error)
        return {}
    return table if isinstance(table, dict) else {}


def _play(spec: "EnvSpec") -> float:
    """Play random episodes one after another, so that short ones do not count more than long ones."""
    from slm_lab.env import make_env  # takes a while, and is rarely needed

    env = make_env(spec.model_copy(update={"max_t": None}), seed=0, num_envs=1, training=False)
    try:
        return float(np.mean(_random_returns(env)))
    finally:
        env.close()


def _random_returns(env: Any) -> list[float]:
    env.action_space.seed(0)
    returns: list[float] = []
    deadline = time.monotonic() + MAX_SECONDS
    env.reset()
    for _ in range(MAX_STEPS):
        step = env.step(np.asarray(env.action_space.sample())[None])
        if (step.terminated | step.truncated).any():
            returns += [episode.total_reward for episode in env.stats.drain()]
        if len(returns) >= EPISODES or time.monotonic() > deadline:
            break
    if not returns:
        raise ValueError("not one random episode ended within the time limit")
    return returns[:EPISODES]
