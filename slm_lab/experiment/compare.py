"""Runs side by side, across environments and seeds: what can be said of one over another, and how surely.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264.
The statistics are in `slm_lab.lib.stats`; here scores and curves are read from run folders, named and normalised.

A score is `total_reward_ma` at the end of a run, as in the benchmark table. Across environments it is normalised, so
that random actions are 0 and a reference score is 1: (score − b) / (reference − b).
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from slm_lab.experiment.benchmark import Result, find_result, frames_text, read_result
from slm_lab.experiment.paths import RunPaths, runs_in
from slm_lab.lib.files import read_json, read_rows
from slm_lab.lib.stats import (
    Tasks,
    improvement,
    iqm_score,
    mean_score,
    median_score,
    performance_profile,
    stratified_ci,
)
from slm_lab.spec.errors import SpecError

SHIPPED = Path(__file__).parents[1] / "spec" / "_reference_score.json"
STATISTICS = {"IQM": iqm_score, "mean": mean_score, "median": median_score}
GRID = 100  # points of a curve
FEW = 4  # seeds; of three, one resample in 27 has the worst alone, more than the 2.5 % below the interval

Scores = dict[str, dict[str, np.ndarray]]
Curve = tuple[np.ndarray, np.ndarray]
"""Frames [N] and returns [N] of one seed."""


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval; NaN where one of those it is about has no second seed in any environment."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class Comparison:
    """What is compared.

    Attributes:
        names: of what is compared, in order: algorithms, specs, runs, or as the user called them.
        results: name and result of every run.
        scores: name → environment → score of every seed [seeds].
        curves: name → environment → curve of every seed that has one.
        baselines: environment → mean return of random actions.
        references: environment → reference score.
        shared: the environments that all of them have; only these count across environments.
        notes: what a reader has to know.
    """

    names: list[str] = field(default_factory=list)
    results: list[tuple[str, Result]] = field(default_factory=list)
    scores: Scores = field(default_factory=dict)
    curves: dict[str, dict[str, list[Curve]]] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def normalise(self, env: str, scores: np.ndarray) -> np.ndarray:
        """Return scores of an environment with random actions at 0 and the reference at 1."""
        return (scores - self.baselines[env]) / (self.references[env] - self.baselines[env])

    def tasks(self, name: str, envs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return the normalised scores of each environment, of the shared ones if none are given."""
        return [self.normalise(env, self.scores[name][env]) for env in (self.shared if envs is None else envs)]

    @property
    def envs(self) -> list[str]:
        """All environments, by name."""
        return sorted(self.baselines)


# --- reading


def compare(targets: Sequence[str], reference_file: Path | None = None) -> Comparison:
    """Read what the targets name.

    Args:
        targets: run folders, or folders of runs, of which the newest run of each spec counts; `NAME=…` puts all runs
            of a folder under one name.
        reference_file: JSON `{environment: reference score}`, before those that ship with the lab.

    Raises:
        SpecError: there is nothing to compare, or no reference score above the baseline.
    """
    comparison = Comparison()
    references = _read_references(reference_file)
    for name, (paths, result) in name_runs(list(_results(targets))):
        _add(comparison, name, paths, result)
    if not comparison.names:
        raise SpecError("no run with a score in any of these; `slm-retro RUN` makes the metrics of a run again")
    comparison.shared = [
        env for env in comparison.envs if all(env in comparison.scores[name] for name in comparison.names)
    ]
    if not comparison.shared:
        comparison.notes.append("no environment that all have: nothing can be said across environments")
    elif left := [env for env in comparison.envs if env not in comparison.shared]:
        comparison.notes.append(f"not every one has {', '.join(left)}: left out across environments")
    few = {name for name in comparison.names for seeds in comparison.scores[name].values() if 1 < seeds.size < FEW}
    if few:
        why = f"with fewer than {FEW} seeds an interval in one environment goes from the worst seed to the best"
        comparison.notes.append(f"{', '.join(sorted(few))}: {why}")
    for env in comparison.envs:
        comparison.references[env] = _reference(comparison, env, references)
    return comparison


def _results(targets: Sequence[str]) -> Iterator[tuple[str | None, RunPaths, Result]]:
    """Yield (the user's name for it, run, what it came to)."""
    seen: set[tuple[str | None, Path, int]] = set()
    for target in targets:
        name, equals, path = target.partition("=")
        user_name = name if equals and not Path(target).exists() else None
        for paths, result in _of_target(path if user_name else target, newest=user_name is None):
            key = (user_name, paths.folder.resolve(), paths.trial)
            if key not in seen:  # a seed that counts twice would look like two
                yield user_name, paths, result
            seen.add(key)


def _of_target(target: str, newest: bool) -> list[tuple[RunPaths, Result]]:
    """Return the runs that a target means and that have a score; of a folder of runs the newest of each spec, if so."""
    inside = runs_in(target) if Path(target).is_dir() else []
    results = []
    for run in [paths.folder for paths in inside] or [target]:
        try:
            paths = find_result(run)
            result = read_result(paths)
        except SpecError as error:
            if not inside:
                raise
            logger.warning("left out: {}", error)
            continue
        if result.scores and not math.isnan(result.baseline):
            results.append((paths, result))
        else:
            logger.warning("left out: {}: no score in its metrics; `slm-retro {}` makes them", result.run, paths.folder)
    if not newest:
        return results
    by_spec = {(result.spec_name, result.env, result.max_frame): paths for paths, result in sorted(results, key=_age)}
    return [(paths, result) for paths, result in results if paths in by_spec.values()]


def _age(entry: tuple[RunPaths, Result]) -> str:
    return entry[1].stamp


def name_runs(
    results: Sequence[tuple[str | None, RunPaths, Result]],
) -> Iterator[tuple[str, tuple[RunPaths, Result]]]:
    """Name each run by its algorithm, or by its spec or its folder where that would throw two runs together.

    Args:
        results: name that the user gave it or None, run, and what it came to.
    """
    own = [result for name, _, result in results if name is None]
    algorithms = Counter((result.algorithm, result.env) for result in own)
    specs = Counter((result.spec_name, result.env) for result in own)
    twice = {algorithm for (algorithm, _), count in algorithms.items() if count > 1}
    for name, paths, result in results:
        if name is None:
            name = result.algorithm
            if name in twice:
                name = result.spec_name if specs[result.spec_name, result.env] == 1 else result.run
        yield name, (paths, result)


def _add(comparison: Comparison, name: str, paths: RunPaths, result: Result) -> None:
    if name not in comparison.names:
        comparison.names.append(name)
    comparison.results.append((name, result))
    env = result.env
    scores = comparison.scores.setdefault(name, {})
    scores[env] = np.concatenate([scores.get(env, np.empty(0)), result.scores])
    curves = comparison.curves.setdefault(name, {}).setdefault(env, [])
    for index in result.sessions:
        try:
            curves.append(read_curve(paths.for_session(index)))
        except (OSError, ValueError) as error:
            comparison.notes.append(f"{result.run}: no curve of session {index}: {error}")
    known = comparison.baselines.setdefault(env, result.baseline)
    if known != result.baseline:
        comparison.notes.append(f"{result.run}: has a baseline of {result.baseline:g}; {known:g} is used for {env}")
    comparison.notes += [f"{result.run}: {note}" for note in result.notes]


def read_curve(paths: RunPaths) -> Curve:
    """Read the learning curve of a session: of its evaluation where there is one, of its training otherwise.

    Raises:
        OSError: there are no rows.
        ValueError: there is no finite return in them.
    """
    file = paths.session_df("eval")
    rows = read_rows(file if file.exists() else paths.session_df("train"))
    frames, returns = (rows.get(name, np.empty(0)) for name in ("frame", "total_reward"))
    scored = np.isfinite(returns) & np.isfinite(frames) if frames.size == returns.size else np.empty(0, dtype=bool)
    if not scored.any():
        raise ValueError("no return in its rows")
    return frames[scored], returns[scored]


def _read_references(file: Path | None) -> dict[str, float]:
    shipped: dict[str, float] = read_json(SHIPPED)
    if file is None:
        return shipped
    try:
        own: Any = read_json(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"--reference {file}: cannot be read: {why}; write {{environment: score}}") from error
    if not isinstance(own, dict) or not all(isinstance(score, int | float) for score in own.values()):
        raise SpecError(f"--reference {file}: not {{environment: score}} with a number for each environment")
    return shipped | {env: float(score) for env, score in own.items()}


def _reference(comparison: Comparison, env: str, references: Mapping[str, float]) -> float:
    value, baseline = references.get(env), comparison.baselines[env]
    if value is None:
        value = max(float(scores[env].mean()) for scores in comparison.scores.values() if env in scores)
        comparison.notes.append(f"{env}: no reference score; the best mean of those compared, {value:.6g}, stands in")
    if not value > baseline:
        raise SpecError(
            f"{env}: the reference score {value:.6g} is not above that of random actions, {baseline:.6g}, and so "
            f'cannot stand for 1; give another: --reference FILE with {{"{env}": score}}'
        )
    return value


# --- statistics


def estimate(statistic: Callable[..., np.ndarray], *groups: Tasks) -> Estimate:
    """Return a statistic of groups of tasks with its stratified-bootstrap interval."""
    value = np.asarray(statistic(*groups))
    if any(all(task.size < 2 for task in tasks) for tasks in groups):
        unknown = np.full(value.shape, np.nan)  # one seed says nothing about another
        return Estimate(value, unknown, unknown)
    return Estimate(value, *stratified_ci(statistic, *groups))


def aggregates(comparison: Comparison) -> dict[str, dict[str, Estimate]]:
    """Return name → statistic → its estimate, over the shared environments; nothing if there are none."""
    names = comparison.names if comparison.shared else []
    return {
        name: {title: estimate(statistic, comparison.tasks(name)) for title, statistic in STATISTICS.items()}
        for name in names
    }


def improvements(comparison: Comparison) -> dict[tuple[str, str], Estimate]:
    """Return (x, y) → the probability that a run of x beats one of y, over the environments that both have."""
    found = {}
    for x, y in itertools.combinations(comparison.names, 2):
        both = [env for env in comparison.envs if env in comparison.scores[x] and env in comparison.scores[y]]
        if both:
            found[x, y] = estimate(improvement, comparison.tasks(x, both), comparison.tasks(y, both))
    return found


def profiles(comparison: Comparison) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Return thresholds [τ], and name → the share of its runs above each of them [τ], over the shared environments."""
    tasks = {name: comparison.tasks(name) for name in comparison.names if comparison.shared}
    scores = [0.0, 1.0, *(score for found in tasks.values() for task in found for score in task)]
    thresholds = np.linspace(min(scores), max(scores), 201)
    return thresholds, {
        name: estimate(lambda drawn: performance_profile(drawn, thresholds), found) for name, found in tasks.items()
    }


def efficiency_curves(comparison: Comparison, env: str | None = None) -> dict[str, tuple[np.ndarray, Estimate]]:
    """Return name → frames [G], and the IQM of the seeds there [G], all on one grid of frames.

    A curve goes on as long as all seeds do: where one has no return yet, or has ended, there is NaN, as a mean over
    fewer seeds would be another's.

    Args:
        comparison: what is compared.
        env: returns of this environment; None normalises them and takes the shared environments together.
    """
    envs = comparison.shared if env is None else [env]
    chosen = {
        name: [_normalised(comparison, each, env is None, curves[each]) for each in envs]
        for name, curves in comparison.curves.items()
        if envs and all(curves.get(each) for each in envs)
    }
    ends = [min(frames[-1] for task in tasks for frames, _ in task) for tasks in chosen.values()]
    grid = np.linspace(0.0, max(ends, default=0.0), GRID + 1)[1:]
    return {name: (grid, _curve(tasks, grid)) for name, tasks in chosen.items()}


def _normalised(comparison: Comparison, env: str, normalise: bool, curves: Iterable[Curve]) -> list[Curve]:
    return [(frames, comparison.normalise(env, returns) if normalise else returns) for frames, returns in curves]


def _curve(tasks: Sequence[Sequence[Curve]], grid: np.ndarray) -> Estimate:
    """Return the IQM of some curves on a grid [G], with its interval."""
    on_grid = [np.stack([at_frames(frames, returns, grid) for frames, returns in task]) for task in tasks]
    points = [estimate(iqm_score, [task[:, point] for task in on_grid]) for point in range(grid.size)]
    return Estimate(*(np.array([getattr(point, part) for point in points]) for part in ("value", "low", "high")))


def at_frames(frames: np.ndarray, returns: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return a curve at other frames: linear between its rows, NaN before its first and after its last [G]."""
    return np.interp(grid, frames, returns, left=np.nan, right=np.nan)


def frames_of(comparison: Comparison, name: str, env: str) -> str:
    """Write the frames that the seeds of a name have at least."""
    ends = [frames[-1] for frames, _ in comparison.curves[name].get(env, [])]
    return frames_text(min(ends)) if ends else "–"
