"""The lab itself: a session of a spec, with rows and checkpoints as users have them."""

import sys
import tempfile
from pathlib import Path

from bench.meter import Meter
from bench.works import Work

SPECS = Path(__file__).parents[1] / "specs"


def spec_file(work: Work) -> Path:
    """Return the file that holds the spec of a work; the spec has the work's name."""
    return SPECS / f"{work.algorithm}.json"


def settings(precision: str) -> list[str]:
    """Return the KEY=VALUE texts of a precision."""
    return [] if precision == "float32" else [f"meta.precision={precision}"]


def command(work: Work, data_dir: str, precision: str) -> list[str]:
    """Return the command line of a whole trial, as a user would give it."""
    sets = [part for text in settings(precision) for part in ("--set", text)]
    run_lab = str(Path(__file__).parents[2] / "run_lab.py")
    return [sys.executable, run_lab, str(spec_file(work)), work.name, "train", "--data", data_dir, *sets]


def run(work: Work, meter: Meter, threads: int, precision: str) -> None:
    """Train; the meter is told after every update of the agent."""
    from slm_lab.agent import Agent
    from slm_lab.experiment.paths import new_run
    from slm_lab.experiment.session import Session
    from slm_lab.lib.logger import setup_logger
    from slm_lab.spec import load_spec

    update = Agent.update

    def metered(agent: Agent, frame: int) -> dict[str, float]:
        metrics = update(agent, frame)
        meter(frame)
        return metrics

    Agent.update = metered
    spec = load_spec(str(spec_file(work)), work.name, settings(precision)).with_meta(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        paths = new_run(Path(folder), spec.name).for_session(0)
        setup_logger("INFO", paths.session_log)
        Session(spec, paths, threads=threads, report=lambda *_: None).run()
