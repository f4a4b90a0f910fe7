"""`python -m bench.scale`: how the lab's cost per frame and its memory grow with environments, replay and frames."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

from bench.machine import describe
from bench.report import table_of
from bench.sides.lab import SPECS

ENVIRONMENTS = (1, 8, 32, 128, 512)
TRANSITIONS = 1024
"""Of a rollout, whatever the number of environments: the work per frame stays the same."""
REPLAYS = (10_000, 100_000, 1_000_000)
FLAT_FRAMES = 2_000_000


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON")
    return parser.parse_args(words)


def main() -> None:
    """Measure, and print the tables; or be the process of one measurement."""
    given = parse(sys.argv[1:])
    if given.one:
        print(json.dumps(session(**json.loads(given.one))))  # noqa: T201
        return
    measured = {"machine": describe(), "environments": environments(), "replay": replays(), "memory": memory()}
    if given.output is not None:
        given.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(render(measured))  # noqa: T201


def environments() -> dict[int, float]:
    """Return µs per frame of PPO on CartPole, by number of environments."""
    found = {}
    for count in ENVIRONMENTS:
        horizon = {"agent.algorithm.time_horizon": TRANSITIONS // count}
        points = in_a_process("ppo", "ppo_cartpole", {"env.num_envs": count, "env.max_frame": 400_000, **horizon})
        found[count] = cost(points, 200_000)
    return found


def replays() -> dict[int, float]:
    """Return µs per frame of DQN on CartPole with a full replay, by its size."""
    found = {}
    for size in REPLAYS:
        start = {"agent.memory.max_size": size, "agent.algorithm.training_start_step": size}
        points = in_a_process("dqn", "dqn_cartpole", {"env.max_frame": size + 30_000, **start})
        found[size] = cost(points, size + 10_000)
    return found


def memory() -> dict[str, float]:
    """Return MB resident and their growth in MB per million frames, over the later three quarters of a PPO run."""
    points = in_a_process("ppo", "ppo_cartpole", {"env.max_frame": FLAT_FRAMES})
    late = [(frame, resident) for frame, _, resident in points if frame > FLAT_FRAMES / 4]
    frames, resident = zip(*late, strict=True)
    return {"resident": max(resident) / 1e6, "growth": linear_regression(frames, resident).slope}


def cost(points: Sequence[Sequence[float]], since: float) -> float:
    """Return µs per frame from frame `since` on."""
    late = [(frame, seconds) for frame, seconds, _ in points if frame >= since]
    (first, begun), (last, ended) = late[0], late[-1]
    return 1e6 * (ended - begun) / (last - first)


def in_a_process(file: str, name: str, changes: Mapping[str, Any]) -> list[list[float]]:
    """Run a session of a spec with some of its values changed, in a process of its own; return its points."""
    one = json.dumps({"file": file, "name": name, "changes": changes})
    done = subprocess.run([sys.executable, "-m", "bench.scale", "--one", one], stdout=subprocess.PIPE, check=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def session(file: str, name: str, changes: Mapping[str, Any]) -> list[tuple[int, float, int]]:
    """Run a session; return (frame, seconds of training, resident bytes) about twice a second."""
    from psutil import Process

    from slm_lab.experiment.paths import new_run
    from slm_lab.experiment.session import Session
    from slm_lab.spec import load_spec

    sets = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    spec = load_spec(str(SPECS / f"{file}.json"), name, sets).with_meta(seed=0)
    points, process = [], Process()

    def report(frame: int, *_: float) -> None:
        points.append((frame, time.perf_counter(), process.memory_info().rss))

    with tempfile.TemporaryDirectory() as folder:
        Session(spec, new_run(Path(folder), spec.name).for_session(0), report=report).run()
    return points


def render(measured: Mapping[str, Any]) -> str:
    """Return the tables."""
    by_count = [(f"{count:,}", f"{cost:.1f}") for count, cost in measured["environments"].items()]
    by_size = [(f"{size:,}", f"{cost:.0f}") for size, cost in measured["replay"].items()]
    flat = measured["memory"]
    growth = f"growing by {flat['growth']:.1f} MB per million frames after the first quarter"
    return "\n\n".join(
        [
            "PPO on CartPole, rollouts of 1,024 transitions:",
            table_of(["environments", "µs per frame"], by_count),
            "DQN on CartPole, an update per frame, with a full replay:",
            table_of(["transitions", "µs per frame"], by_size),
            f"PPO on CartPole over {FLAT_FRAMES:,} frames: at most {flat['resident']:.0f} MB resident, {growth}.",
        ]
    )


if __name__ == "__main__":
    main()
