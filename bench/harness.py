"""Runs the sides in turn, one process at a time, and watches them from outside."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import sides
from bench.maths import best_threads, middle, points_of, rates, rotated
from bench.sides import LAB, SIDES
from bench.sides import lab as lab_side
from bench.works import Work

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.1
LIMIT_SECONDS = 300.0
"""That a runner may take besides its window: to start, and to compile."""
TRIAL_LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Setup:
    """How to measure: seconds of the window and of the warm-up before it, rounds, precision of the lab."""

    seconds: float = 10.0
    warmup: float = 3.0
    rounds: int = 3
    precision: str = "float32"


@dataclass
class Result:
    """What came of one run; None where it failed.

    Attributes:
        fps: frames per second: over the window, or of a whole trial from launch to results.
        steps: gradient steps per second over the window.
        first: seconds from launch to the end of the first update.
        memory: largest resident memory of the process tree seen, in bytes.
        error: the last line that it wrote before it failed.
    """

    fps: float | None = None
    steps: float | None = None
    first: float | None = None
    memory: int = 0
    error: str | None = None


def measure(work: Work, side: str, threads: int, setup: Setup) -> Result:
    """Run one side once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if work.sessions and side == LAB:
            commands = [lab_side.command(work, str(folder / "data"), setup.precision)]
        else:
            commands = [_runner(work, side, threads, setup)] * max(1, work.sessions)
        begun = time.time()
        outputs = [(folder / f"{index}.out", folder / f"{index}.err") for index in range(len(commands))]
        processes = [
            _start(command, *files, environment(threads, work, side))
            for command, files in zip(commands, outputs, strict=True)
        ]
        memory, over = _watch(processes, TRIAL_LIMIT_SECONDS if work.sessions else LIMIT_SECONDS + setup.seconds)
        seconds = time.time() - begun
        result = Result(memory=memory)
        failed = [file for process, (_, file) in zip(processes, outputs, strict=True) if process.returncode != 0]
        if over or failed:
            result.error = (
                f"took more than {seconds:.0f} s" if over else last_line(failed[0].read_text(errors="replace"))
            )
            return result
        points = [points_of(output.read_text(errors="replace")) for output, _ in outputs]
        if points[0]:
            result.first = min(found[0].time for found in points) - begun
        if work.sessions:
            result.fps = work.sessions * work.max_frame / seconds
            return result
        try:
            result.fps, events = rates(points[0], setup.warmup)
        except ValueError as error:
            result.error = str(error)
        else:
            result.steps = events * work.steps_per_event
        return result


def environment(threads: int, work: Work, side: str) -> dict[str, str]:
    """Return the environment variables of a runner; the lab shares out the cores of a whole trial itself."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    if not (work.sessions and side == LAB):
        env |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return env


def last_line(text: str) -> str:
    """Return the last line of what a runner wrote that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Exit"))]
    return (errors or lines or ["ended without a word"])[-1][:200]


def compare(work: Work, names: Sequence[str], setup: Setup, say: Callable[[str], object]) -> dict[str, Any]:
    """Measure a work by sides; returns what the JSON holds of it.

    Before the rounds every side runs once with one thread and once with two, and keeps to what was faster; a whole
    trial has four processes on the cores, so there it is one thread each.
    """
    table: dict[str, dict[str, Any]] = {
        name: {"error": refusal(work, name), "threads": None, "tried": {}, "first_cold": None, "rounds": []}
        for name in names
    }
    for name, entry in table.items():
        if entry["error"] is None:
            _try_threads(work, name, setup, entry, say)
    able = [name for name, entry in table.items() if entry["error"] is None]
    for round_ in range(setup.rounds):
        for name in rotated(able, round_) if able else []:
            result = measure(work, name, table[name]["threads"] or 1, setup)
            table[name]["rounds"].append(asdict(result))
            say(f"{work.name} round {round_ + 1} {name}: {_told(result)}")
    return {"sides": table}


def refusal(work: Work, name: str) -> str | None:
    """Return why a side takes no part in a work; None if it does."""
    side = SIDES[name]
    reason = dict(side.cannot).get("trial" if work.sessions else work.name)
    if reason is None and side.package is not None and not sides.installed(side.package):
        return "not installed"
    return reason


def _try_threads(work: Work, name: str, setup: Setup, entry: dict[str, Any], say: Callable[[str], object]) -> None:
    """Run a side with one and with two threads, and note what was faster."""
    if work.sessions:
        entry["threads"] = None if name == LAB else 1
        return
    short = Setup(max(2.0, setup.seconds / 2), setup.warmup, 1, setup.precision)
    tried: dict[int, float | None] = {}
    for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
        result = measure(work, name, threads, short)
        say(f"{work.name} {name}, {threads} thread(s): {_told(result)}")
        tried[threads] = result.fps
        entry["first_cold"] = entry["first_cold"] or result.first
        error = result.error
    if middle(tried.values()) is None:
        entry["error"] = error
    entry["threads"], entry["tried"] = best_threads(tried), {str(key): value for key, value in tried.items()}


def _told(result: Result) -> str:
    return result.error or f"{result.fps:,.0f} frames/s, {result.memory / 2**20:,.0f} MiB"


def _runner(work: Work, side: str, threads: int, setup: Setup) -> list[str]:
    options = {"threads": threads, "seconds": setup.seconds, "warmup": setup.warmup, "precision": setup.precision}
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    return [sys.executable, "-m", "bench.sides", side, work.name, *flags]


def _start(command: list[str], output: Path, error: Path, env: dict[str, str]) -> subprocess.Popen:
    with output.open("wb") as out, error.open("wb") as err:
        return subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=ROOT, env=env)  # noqa: S603


def _watch(processes: Sequence[subprocess.Popen], limit: float) -> tuple[int, bool]:
    """Wait for the processes; return the largest resident memory seen of them and their children, and if it was long.

    What is left of them at the end is killed.
    """
    import psutil

    end, peak = time.time() + limit, 0
    trees = [psutil.Process(process.pid) for process in processes]
    seen: dict[int, Any] = {process.pid: process for process in trees}
    try:
        while any(process.poll() is None for process in processes) and time.time() < end:
            now = 0
            for tree in trees:
                with suppress(psutil.Error):
                    seen |= {child.pid: child for child in tree.children(recursive=True)}
            for process in seen.values():
                with suppress(psutil.Error):
                    now += process.memory_info().rss
            peak = max(peak, now)
            time.sleep(POLL_SECONDS)
        over = any(process.poll() is None for process in processes)
    finally:
        for process in seen.values():
            with suppress(psutil.Error):
                process.kill()  # does nothing to a later process of the same id
        for process in processes:
            process.wait()
    return peak, over


def fresh_compiler_cache() -> Callable[[], None]:
    """Let every runner begin with an empty cache of compiled code, shared by all of them; return what removes it."""
    folder = tempfile.mkdtemp(prefix="bench_compiled_")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    return lambda: shutil.rmtree(folder, ignore_errors=True)
