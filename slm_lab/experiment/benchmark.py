"""The benchmark table: what runs came to, as Markdown, from the files in their folders alone."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from slm_lab.experiment.paths import RunPaths, find_run, read_spec, runs_in
from slm_lab.experiment.search_results import best_trial
from slm_lab.lib.files import read_json, read_rows
from slm_lab.lib.stats import bootstrap_ci
from slm_lab.lib.table import markdown_table
from slm_lab.spec.algorithm import ALGORITHMS
from slm_lab.spec.env import EnvSpec
from slm_lab.spec.errors import SpecError
from slm_lab.spec.upgrade import OLDER_ENV_KEYS, UNREAD

NONE = "–"
INTRODUCTION = """\
# Benchmarks

Made from run folders by `slm-lab benchmark-table`; not edited by hand.

A score is `total_reward_ma` at the end of a run: the mean over the last 100 rows of the training curve of the mean
return of the last 100 episodes, so early and stable learning counts. It is averaged over the seeds of the run; in
brackets, the 95 % bootstrap interval of that mean. Frames are steps of single environments, over all of them.
"""
ABOUT_CELLS = """\
The newest run of each spec counts, and where there are several specs for one place, the one with the higher score.
An asterisk: see the notes at the end.
"""
ABOUT_CURVES = """\
The mean return of the last 100 episodes at each tenth of the frames, averaged over the seeds of the run.
"""
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
RUNS_HEAD = ["environment", "algorithm", "spec", "score", "95 % interval", "seeds", "each seed", "frames"]
RUNS_HEAD += ["time a seed", "spec hash", "commit", "run"]
CURVES_HEAD = ["environment", "spec", *(f"{tenth:.0%}" for tenth in TENTHS), "run"]


@dataclass(frozen=True)
class Result:
    """What one trial came to.

    Attributes:
        env: environment, with the arguments that make another task of it.
        algorithm: the agent's label.
        rank: place of the algorithm among the columns.
        max_frame: frames that the spec asks for.
        spec_name: name of the spec.
        sessions: index of every session that has a score.
        scores: `total_reward_ma` of each of them.
        baseline: mean return of random actions; NaN if unknown.
        seed: `meta.seed`.
        wall: seconds that a session took, on average; NaN if unknown.
        curve: `total_reward` at each tenth of the frames, averaged over the sessions; NaN where one has none yet.
        spec_hash: as the run wrote it down.
        commit: of the lab, with "+" where it had changes; "unknown" if the run does not say.
        run: name of the folder.
        notes: what is missing or not as planned.
    """

    env: str
    algorithm: str
    rank: int
    max_frame: float
    spec_name: str
    sessions: tuple[int, ...]
    scores: tuple[float, ...]
    baseline: float
    seed: int | None
    wall: float
    curve: tuple[float, ...]
    spec_hash: str
    commit: str
    run: str
    notes: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean of the scores; NaN if there is none."""
        return float(np.mean(self.scores)) if self.scores else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean."""
        return bootstrap_ci(self.scores, lambda values: float(values.mean()))

    @property
    def stamp(self) -> str:
        """When the run began, as its folder says; folders without a date are the oldest."""
        return "".join(re.findall(r"_(\d{4}_\d{2}_\d{2}_\d{6})$", self.run))


def benchmark_page(targets: Iterable[str | Path]) -> str:
    """Return the whole page for some runs: the scores as a matrix, then every run with all there is to know.

    Args:
        targets: run folders, or folders of runs such as `data`.

    Raises:
        SpecError: there is no run.
    """
    return page_of(read_results(targets))


def page_of(results: Iterable[Result]) -> str:
    """Return the whole page for what some runs came to."""
    results = sorted(results, key=_order)
    notes = [f"- {result.run}: {note}" for result in results for note in result.notes]
    parts = [INTRODUCTION, "## Scores\n", ABOUT_CELLS, _matrix(results), "## Runs\n", runs_table(results)]
    parts += ["## Curves\n", ABOUT_CURVES, _curves(results)]
    parts += ["## Notes\n", "\n".join(notes) + "\n"] if notes else []
    return "\n".join(parts)


def read_results(targets: Iterable[str | Path]) -> list[Result]:
    """Read what the runs that `targets` mean left behind.

    Raises:
        SpecError: there is no run.
    """
    return [read_result(paths) for paths in find_runs(targets)]


def find_runs(targets: Iterable[str | Path]) -> list[RunPaths]:
    """Find the runs that `targets` mean, each once; what is none is named in a warning.

    Raises:
        SpecError: there is no run.
    """
    found: dict[Path, RunPaths] = {}
    for target in map(Path, targets):
        inside = runs_in(target) if target.is_dir() else []
        for run in [paths.folder for paths in inside] or [target]:
            try:
                found[run.resolve()] = find_result(run)
            except SpecError as error:
                logger.warning("left out: {}", error)
    if not found:
        data = os.environ.get("DATA_DIR")
        hint = f"; DATA_DIR is {data}" if data else ""
        raise SpecError(f"no run in any of these; name run folders, or the folder that holds them{hint}")
    return list(found.values())


def find_result(target: str | Path) -> RunPaths:
    """Find the trial that a path means; the folder of a search means its best.

    Raises:
        SpecError: no run is there, or no trial of it has come to a score.
    """
    paths = find_run(target)
    is_search = paths.study.exists() and Path(target).is_dir()
    return paths.for_trial(best_trial(paths).trial) if is_search else paths


def read_result(paths: RunPaths) -> Result:
    """Read what a trial left behind.

    Raises:
        SpecError: its spec cannot be read, so nothing can be said of it.
    """
    spec = spec_of(paths)
    notes: list[str] = []
    env, algorithm = spec["env"], spec["agent"]["algorithm"]["name"]
    metrics = _read(paths.trial_metrics, notes)
    sessions, baseline = metrics.get("sessions", {}), metrics.get("random_baseline")
    derived = _read(paths.derived, notes)
    scores = {int(index): session for index, session in sessions.items() if session.get("total_reward_ma") is not None}
    scored = list(scores.values())
    planned = spec["meta"].get("max_session", 1)
    if len(scored) < planned:
        notes.append(f"{len(scored)} of {planned} seeds have a score")
    frames = min((session["frame"] for session in scored), default=0)
    if scored and frames < env["max_frame"]:
        notes.append(f"stopped at {frames_text(frames)} of {frames_text(env['max_frame'])} frames")
    if derived.get("mode") == "search":
        notes.append(_search_note(paths))
    elif derived.get("mode", "train") != "train":
        notes.append(f"a run in mode {derived['mode']}")
    if derived and not derived.get("git_commit"):
        notes.append("the commit of the lab was not known to it")
    if spec["meta"].get("rigorous_eval"):
        notes.append("the score is of evaluation episodes, not of training")
    if (precision := spec["meta"].get("precision", "float32")) != "float32":
        notes.append(f"trained in {precision}")
    label = spec["agent"].get("name", "agent")
    commit = derived.get("git_commit") or "unknown"
    rows = _rows(paths, sessions, notes)
    return Result(
        env=_env_text(env),
        algorithm=algorithm if label == "agent" else label,
        rank=rank_of(algorithm),
        max_frame=float(env["max_frame"]),
        spec_name=paths.spec_name,
        sessions=tuple(scores),
        scores=tuple(session["total_reward_ma"] for session in scored),
        baseline=math.nan if baseline is None else float(baseline),
        seed=spec["meta"].get("seed"),
        wall=float(np.mean([row["wall_t"][-1] for row in rows])) if rows else math.nan,
        curve=tuple(_at(rows, tenth * env["max_frame"]) for tenth in TENTHS),
        spec_hash=derived.get("spec_hash", "unknown"),
        commit=commit[:10] + "+" * (len(commit) > 10 and commit.endswith("+")),
        run=paths.folder.name,
        notes=tuple(notes),
    )


def rank_of(algorithm: str) -> int:
    """Return the place of an algorithm among the columns; those that the lab does not know are last."""
    return list(ALGORITHMS).index(algorithm) if algorithm in ALGORITHMS else len(ALGORITHMS)


def _search_note(paths: RunPaths) -> str:
    try:
        best = best_trial(paths).trial
    except (SpecError, OSError, ValueError, KeyError):  # no trial has come to a score, or the table is gone
        return "a trial of a search"
    if best != paths.trial:
        return f"a trial of a search, whose best is trial {best}"
    return "a trial of a search, chosen by this very score; train it with `slm-lab best RUN --train`"


def spec_of(paths: RunPaths) -> dict[str, Any]:
    """Read the spec of a trial, or of its run if the trial has none.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return read_spec(paths.trial_spec if paths.trial_spec.exists() else paths.spec)
    except (OSError, ValueError) as error:
        raise SpecError(f"{paths.folder}: no whole spec in it: {error}") from error


def _env_text(env: Mapping[str, Any]) -> str:
    """Return the name of an environment, with the arguments that make another task of it."""
    known = {*EnvSpec.model_fields, *UNREAD["env"], *OLDER_ENV_KEYS}
    arguments = ", ".join(f"{key}={value}" for key, value in env.items() if key not in known)
    return f"{env['name']} ({arguments})" if arguments else env["name"]


def _order(result: Result) -> tuple[Any, ...]:
    """Sort by place in the matrix, then by spec and time."""
    return result.env, result.max_frame, result.rank, result.algorithm, result.spec_name, result.stamp


def _read(file: Path, notes: list[str]) -> dict[str, Any]:
    """Read a JSON object; an empty one, and a note, where there is none."""
    try:
        content = read_json(file)
    except FileNotFoundError:
        notes.append(f"{file.name} is missing")
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read: {error}")
    else:
        return content if isinstance(content, dict) else {}
    return {}


def _rows(paths: RunPaths, sessions: Iterable[str], notes: list[str]) -> list[dict[str, np.ndarray]]:
    """Return the training curves of the sessions that have one."""
    found = []
    for index in sessions:
        try:
            rows = read_rows(paths.for_session(int(index)).session_df("train"))
        except OSError:
            notes.append(f"the rows of session {index} are missing, so its time and its curve are not known")
        else:
            found += [rows] if len(rows.get("wall_t", ())) else []
    return found


def _at(curves: Sequence[Mapping[str, np.ndarray]], frame: float) -> float:
    """Return the mean of the curves at a frame."""
    if not curves or any(frame < curve["frame"][0] for curve in curves):
        return math.nan
    newest = [np.searchsorted(curve["frame"], frame, "right") - 1 for curve in curves]
    return float(np.mean([curve["total_reward"][row] for curve, row in zip(curves, newest, strict=True)]))


def _curves(results: Sequence[Result]) -> str:
    """Return a table with one row for each run."""
    cells = ([result.env, result.spec_name, *map(number_text, result.curve), result.run] for result in results)
    return markdown_table(CURVES_HEAD, cells)


def best_results(results: Iterable[Result]) -> dict[tuple[str, float, str], Result]:
    """Return of each environment, number of frames and algorithm the best spec's newest run.

    Args:
        results: the runs of a spec from old to new, as on the page.
    """
    newest = {(result.env, result.max_frame, result.spec_name): result for result in results}
    best: dict[tuple[str, float, str], Result] = {}
    for result in newest.values():
        place = (result.env, result.max_frame, result.algorithm)
        if place not in best or not result.mean <= best[place].mean:
            best[place] = result
    return best


def _matrix(results: Sequence[Result]) -> str:
    """Return environments × algorithms."""
    columns = sorted({(result.rank, result.algorithm) for result in results})
    places = sorted({(result.env, result.max_frame) for result in results})
    best = best_results(results)
    head = ["environment", "frames", *(algorithm for _, algorithm in columns)]
    cells = (
        [env, frames_text(frames), *(_cell(best.get((env, frames, algorithm))) for _, algorithm in columns)]
        for env, frames in places
    )
    return markdown_table(head, cells)


def runs_table(results: Sequence[Result]) -> str:
    """Return a table in Markdown with one row for each run."""
    cells = (
        [
            result.env,
            result.algorithm,
            result.spec_name,
            number_text(result.mean) + "\\*" * bool(result.notes),
            _interval(result),
            f"{len(result.scores)}" + (f" (from {result.seed})" if result.seed is not None else ""),
            ", ".join(map(number_text, result.scores)) or NONE,
            frames_text(result.max_frame),
            _duration(result.wall),
            result.spec_hash,
            result.commit,
            result.run,
        ]
        for result in results
    )
    return markdown_table(RUNS_HEAD, cells)


def _cell(result: Result | None) -> str:
    if result is None or not result.scores:
        return NONE
    interval = f" {_interval(result)}" if len(result.scores) > 1 else ""
    return number_text(result.mean) + interval + "\\*" * bool(result.notes)


def _interval(result: Result) -> str:
    low, high = result.interval
    return f"[{number_text(low)}, {number_text(high)}]" if len(result.scores) > 1 else NONE


def number_text(value: float) -> str:
    """Write a score: `number_text(1 / 3)` is "0.3"."""
    return f"{value:.1f}" if math.isfinite(value) else NONE


def frames_text(frames: float) -> str:
    """Write a number of frames: `frames_text(300000)` is "3e5"."""
    digits, _, power = f"{frames:.6e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _duration(seconds: float) -> str:
    """Write a time: `_duration(3750)` is "1 h 02 min"."""
    if not math.isfinite(seconds):
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
