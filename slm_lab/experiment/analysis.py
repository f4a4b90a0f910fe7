"""From the rows of the sessions to the metrics of sessions and trials. Reads files, writes files, knows no training.

Notation: R_i is `total_reward` in row i of the N rows that have one, b the mean return of a random policy, and
s_i = R_i − b the strength of row i. Rows before the first finished episode have no R and count for nothing.

A quotient without a denominator (one row, no optimiser step, as strong as random throughout) is NaN here and null in
the files; a short run has fewer metrics, and is as valid as a long one.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from slm_lab.experiment import graph
from slm_lab.experiment.baseline import random_baseline
from slm_lab.experiment.paths import RunPaths
from slm_lab.lib.files import atomic_write, read_rows, rows_text, write_json
from slm_lab.lib.stats import bootstrap_ci, iqm

if TYPE_CHECKING:
    from slm_lab.spec import Spec

MA_WINDOW = 100  # rows in total_reward_ma
SESSION_SCALARS = (
    "frame",
    "total_reward_ma",
    "strength",
    "max_strength",
    "final_strength",
    "sample_efficiency",
    "training_efficiency",
    "stability",
)
TRIAL_SCALARS = (*SESSION_SCALARS, "consistency")

Rows = Mapping[str, np.ndarray]
Series = dict[str, np.ndarray]
Scalars = dict[str, float]


@dataclass(frozen=True)
class SessionMetrics:
    """What one session came to.

    Attributes:
        scalar: name → value, see `SESSION_SCALARS`.
        local: name → the same metric over the rows up to each row [N], beside the rows' `frames`, `opt_steps`,
            `mean_returns` and `mean_returns_ma`.
    """

    scalar: Scalars
    local: Series


# --- one session


def moving_average(x: np.ndarray, window: int = MA_WINDOW) -> np.ndarray:
    """Return the mean of the last `window` values up to each value (of all of them while there are fewer) [N]."""
    return np.array([x[max(0, end - window) : end].mean() for end in range(1, x.size + 1)])


def efficiency(strengths: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return Σ s_i/t_i ÷ Σ s_i over the rows up to each row [N]: high when strength comes early.

    Args:
        strengths: s [N].
        steps: t [N], frames (sample efficiency) or optimiser steps (training efficiency); rows at 0 give no s/t.
    """
    per_step = np.divide(strengths, steps, out=np.zeros_like(strengths), where=steps != 0)
    per_step = np.where(np.isnan(steps), np.nan, per_step)
    return _quotient(np.cumsum(per_step), np.cumsum(strengths))


def stability(strengths: np.ndarray) -> np.ndarray:
    """Return 1 − |Σ min(s_{i+1} − s_i, 0) ÷ Σ_{i<n} s_i| over the rows up to each row n [N]: 1 when nothing is lost."""
    drops = np.minimum(np.diff(strengths), 0.0)
    stable = np.full(strengths.size, np.nan)  # a single row has lost nothing and held nothing
    stable[1:] = 1.0 - np.abs(_quotient(np.cumsum(drops), np.cumsum(strengths[:-1])))
    return stable


def session_metrics(rows: Rows, baseline: float) -> SessionMetrics:
    """Compute the metrics of one session.

    Args:
        rows: columns `total_reward`, `frame`, and `opt_step` where there is one [rows].
        baseline: b, mean return of a random policy.
    """
    table = _scored(rows)
    returns, frames, opt_steps = table["total_reward"], table["frame"], table["opt_step"]
    strengths = returns - baseline
    local = {
        "frames": frames,
        "opt_steps": opt_steps,
        "mean_returns": returns,
        "mean_returns_ma": moving_average(returns),
        "strengths": strengths,
        "sample_efficiencies": efficiency(strengths, frames),
        "training_efficiencies": efficiency(strengths, opt_steps),
        "stabilities": stability(strengths),
    }
    last_frame = float(rows["frame"][-1]) if len(rows.get("frame", ())) else math.nan
    if not returns.size:
        return SessionMetrics(dict.fromkeys(SESSION_SCALARS, math.nan) | {"frame": last_frame}, local)
    scalar = {
        "frame": last_frame,
        "total_reward_ma": local["mean_returns_ma"][-1],
        "strength": strengths.mean(),
        "max_strength": strengths.max(),
        "final_strength": strengths[-1],
        "sample_efficiency": local["sample_efficiencies"][-1],
        "training_efficiency": local["training_efficiencies"][-1],
        "stability": local["stabilities"][-1],
    }
    return SessionMetrics({name: float(value) for name, value in scalar.items()}, local)


# --- the sessions of a trial


def align(sessions: Sequence[Series], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Put a series of every session that has one on common ground, up to where the shortest ends.

    Sessions log on one grid of frames, so the frames that all have are compared with each other; a session whose first
    episode took longer lacks a row at the start. On grids that share nothing the row number has to do.

    Returns:
        frames [N] and values [sessions, N].
    """
    sessions = [session for session in sessions if session["frames"].size]
    if not sessions:
        return np.empty(0), np.empty((0, 0))
    common = sessions[0]["frames"]
    for session in sessions[1:]:
        common = np.intersect1d(common, session["frames"])
    if common.size:
        return common, np.stack([s[name][np.searchsorted(s["frames"], common)] for s in sessions])
    shortest = min(session["frames"].size for session in sessions)
    return sessions[0]["frames"][:shortest], np.stack([session[name][:shortest] for session in sessions])


def consistency(strengths: np.ndarray) -> np.ndarray:
    """Return 1 − 2·Σ_i std_j(s_ij) ÷ Σ_i mean_j(s_ij) over the rows up to each row [N]: 1 when all seeds are alike.

    Args:
        strengths: s [sessions, N]. The deviation is the sample's (n − 1); one session has none and is consistent.
    """
    spread = strengths.std(axis=0, ddof=1) if len(strengths) > 1 else np.zeros(strengths.shape[-1])
    mean = strengths.mean(axis=0) if len(strengths) else np.zeros(strengths.shape[-1])
    return 1.0 - 2.0 * _quotient(np.cumsum(spread), np.cumsum(mean))


def trial_metrics(sessions: Mapping[int, SessionMetrics], baseline: float) -> dict[str, Any]:
    """Compute the metrics of a trial from those of its sessions.

    Args:
        sessions: session index → metrics.
        baseline: b, written down beside the metrics that rest on it.

    Returns:
        - `scalar`: the session metrics averaged over the sessions that have them, `consistency`, and the `frame` of the
          first session;
        - `over_seeds`: for `total_reward_ma` and `final_total_reward` (the last R) the mean, std, IQM, and the 95 %
          bootstrap interval `ci95` of the IQM;
        - `sessions`: session index → its scalars;
        - `random_baseline`: b;
        - `local`: series over the frames that all sessions have.
    """
    ordered = [sessions[index] for index in sorted(sessions)]
    scalar = {name: _mean([session.scalar[name] for session in ordered]) for name in SESSION_SCALARS}
    scalar["frame"] = ordered[0].scalar["frame"] if ordered else math.nan
    series = [session.local for session in ordered]
    frames, strengths = align(series, "strengths")
    consistencies = consistency(strengths)
    scalar["consistency"] = float(consistencies[-1]) if consistencies.size else math.nan
    finals = [session.local["mean_returns"][-1:] for session in ordered]
    local = {"frames": frames}
    for name in ("mean_returns", "mean_returns_ma", "strengths"):
        values = align(series, name)[1]
        local[name] = values.mean(axis=0) if values.size else frames
    return {
        "scalar": scalar,
        "over_seeds": {
            "total_reward_ma": _over_seeds(np.array([session.scalar["total_reward_ma"] for session in ordered])),
            "final_total_reward": _over_seeds(np.concatenate([np.empty(0), *finals])),
        },
        "sessions": {
            str(index): sessions[index].scalar | {"final_total_reward": float(last[0]) if last.size else math.nan}
            for index, last in zip(sorted(sessions), finals, strict=True)
        },
        "random_baseline": baseline,
        "local": local | {"consistencies": consistencies},
    }


def metrics_line(scalar: Mapping[str, float]) -> str:
    """Return the line of the log that sums a trial up: `trial_metrics: frame:1.00e+04 | total_reward_ma:155.27 | …`."""
    parts = [f"{name}:{_number(name, scalar.get(name, math.nan))}" for name in TRIAL_SCALARS]
    return "trial_metrics: " + " | ".join(parts)


# --- files


def analyze_trial_sessions(paths: RunPaths, spec: "Spec") -> Scalars:
    """Do all that is left to do when the sessions of a trial have run: metrics, graphs, and the line of the log.

    Args:
        paths: names the trial.
        spec: of the trial.

    Returns:
        the trial's scalar metrics; `RunPaths.trial_metrics` has the rest.
    """
    metrics = analyze_sessions(paths, spec, range(spec.meta.max_session))
    logger.info("{}", metrics_line(metrics["scalar"]))
    graph.draw_run_pngs(paths)
    return metrics["scalar"]


def analyze_sessions(paths: RunPaths, spec: "Spec", sessions: Iterable[int], draw: bool = True) -> dict[str, Any]:
    """Turn the rows of some sessions, and then of their trial, into metrics files and graphs.

    The random baseline is the one that is kept beside the run.

    Args:
        paths: names the trial.
        spec: of the trial.
        sessions: indices of the sessions.
        draw: draw the graphs as well.

    Returns:
        as `trial_metrics`.

    Raises:
        OSError: one of the sessions has no rows file.
    """
    baseline = random_baseline(spec.env, paths.folder.parent)
    for index in sessions:
        analyze_session(paths.for_session(index), baseline, spec.meta.rigorous_eval > 0, draw)
    return analyze_trial(paths, spec.to_dict(), baseline, draw)


def analyze_session(paths: RunPaths, baseline: float, rigorous: bool = False, draw: bool = True) -> dict[str, Scalars]:
    """Turn the rows of a session into its metrics files and graphs.

    Without a rigorous evaluation the training rows are the evaluation rows as well, and are copied, so that the layout
    is complete; then no graph is drawn twice. Rows that are there already are never written over, and where no row is
    left, nor are the metrics.

    Args:
        paths: names a session.
        baseline: b, mean return of a random policy.
        rigorous: whether the spec asks for a rigorous evaluation.
        draw: draw the graphs as well.

    Returns:
        "train" and "eval" → scalar metrics, NaN where no row is left.

    Raises:
        OSError: the session has no rows file.
    """
    tables = {"train": _training_rows(paths, rigorous)}
    if rigorous:
        tables["eval"] = _rows_or_none(paths.session_df("eval"))
    else:
        tables["eval"] = tables["train"]
        _copy_rows(tables["train"], paths.session_df("eval"))
    scalars = {}
    for mode, rows in tables.items():
        metrics = session_metrics(rows, baseline)
        scalars[mode] = metrics.scalar
        if not _count(rows) and paths.session_metrics(mode).exists():
            continue
        write_json(paths.session_metrics(mode), {"scalar": metrics.scalar, "local": metrics.local})
        write_json(paths.session_metrics_scalar(mode), metrics.scalar)
        if draw and (mode == "train" or rigorous):
            _draw(graph.draw_session, paths, mode, rows, metrics.local, baseline)
    return scalars


def analyze_trial(paths: RunPaths, spec: Mapping[str, Any], baseline: float, draw: bool = True) -> dict[str, Any]:
    """Turn the rows of a trial's sessions into the trial's metrics files and graphs.

    The evaluation rows count where there was a rigorous evaluation, the training rows otherwise. A session without
    rows is left out with a warning; where all are, nothing is written.

    Args:
        paths: names a trial.
        spec: the trial's spec as a dict, e.g. `Spec.to_dict()`.
        baseline: b, mean return of a random policy.
        draw: draw the graphs as well.

    Returns:
        as `trial_metrics`.
    """
    sessions = _read_sessions(paths, spec, baseline, warn=False)  # a cut line was named when the session was analysed
    _name_left_out(paths, spec, sessions)
    metrics = trial_metrics(sessions, baseline)
    if not sessions:
        return metrics
    write_json(paths.trial_metrics, metrics)
    write_json(paths.trial_metrics_scalar, metrics["scalar"])
    write_json(paths.trial_metrics_scalar_top, metrics["scalar"])
    if not draw:
        return metrics
    series = {index: session.local for index, session in sessions.items() if session.local["frames"].size}
    means = {name: align(list(series.values()), name) for name in graph.RETURNS}
    _draw(graph.draw_trial, paths, series, means, baseline)
    return metrics


def trial_means(
    paths: RunPaths, spec: Mapping[str, Any], warn: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the curves of a trial: "mean_returns" and "mean_returns_ma" → frames [N] and values [sessions, N].

    Sessions without a return are left out.

    Args:
        paths: names a trial.
        spec: as of `analyze_trial`.
        warn: False where the trial has just been analysed, and what is missing was named.
    """
    sessions = _read_sessions(paths, spec, baseline=0.0, warn=warn)
    if warn:
        _name_left_out(paths, spec, sessions)
    series = [session.local for session in sessions.values() if session.local["frames"].size]
    return {name: align(series, name) for name in graph.RETURNS}


def _read_sessions(
    paths: RunPaths, spec: Mapping[str, Any], baseline: float, warn: bool = True
) -> dict[int, SessionMetrics]:
    """Return session index → metrics; sessions without rows are left out."""
    rigorous = bool(spec["meta"].get("rigorous_eval"))
    sessions = {}
    for index in range(spec["meta"].get("max_session", 1)):
        session = paths.for_session(index)
        file = session.session_df("eval" if rigorous else "train")
        if file.exists():
            rows = read_rows(file, warn) if rigorous else _training_rows(session, rigorous, warn)
            if _count(rows):
                sessions[index] = session_metrics(rows, baseline)
    return sessions


def _name_left_out(paths: RunPaths, spec: Mapping[str, Any], sessions: Mapping[int, SessionMetrics]) -> None:
    mode = "eval" if spec["meta"].get("rigorous_eval") else "train"
    for index in range(spec["meta"].get("max_session", 1)):
        if index not in sessions:
            file = paths.for_session(index).session_df(mode)
            what = "no row in it" if file.exists() else "missing"
            logger.warning("{}: {}; session {} is left out of the trial's metrics", file, what, index)


def _training_rows(paths: RunPaths, rigorous: bool, warn: bool = True) -> Rows:
    """Return the training rows of a session; where the file was cut short, those of its copy."""
    file, other = paths.session_df("train"), paths.session_df("eval")
    rows = read_rows(file, warn)
    copy = {} if rigorous or not other.exists() else read_rows(other, warn=False)
    whole, count = _count(copy), _count(rows)
    nothing = np.empty(0)
    same = (
        np.array_equal(copy.get(name, nothing)[:count], rows.get(name, nothing), equal_nan=True)
        for name in ("frame", "total_reward")
    )
    if whole <= count or not all(same):
        return rows
    if warn:
        logger.warning("{}: only {} of its {} rows; {} has them all, and counts instead", file, count, whole, other)
    return copy


def _copy_rows(rows: Rows, file: Path) -> None:
    """Copy rows into a file, unless it holds any that are not among them."""
    text = rows_text(rows)
    if not file.exists() or text.encode().startswith(file.read_bytes()):
        atomic_write(file, text)


def _count(rows: Rows) -> int:
    return len(rows.get("frame", ()))


def _draw(draw: Callable[..., None], *args: Any) -> None:
    try:
        draw(*args)
    except Exception as error:  # the numbers are safe, and no picture is worth a run
        logger.opt(exception=error).warning("a graph could not be drawn")


def _rows_or_none(file: Path) -> Rows:
    if file.exists():
        return read_rows(file)
    logger.warning("{}: missing, though the spec asks for a rigorous evaluation; its metrics stay empty", file)
    return {}


def _scored(rows: Rows) -> Rows:
    """Return the rows with a finite total_reward; a column that is not there is NaN throughout."""
    returns = np.asarray(rows.get("total_reward", np.empty(0)), dtype=np.float64)
    scored = np.isfinite(returns)
    columns = {name: np.asarray(rows.get(name, np.full(returns.size, np.nan))) for name in ("frame", "opt_step")}
    return {"total_reward": returns[scored]} | {name: column[scored] for name, column in columns.items()}


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if math.isfinite(value)]
    return float(np.mean(there)) if there else math.nan


def _over_seeds(values: np.ndarray) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    spread = values.std(ddof=1) if values.size > 1 else math.nan
    return {
        "mean": _mean(values.tolist()),
        "std": float(spread),
        "iqm": iqm(values),
        "ci95": list(bootstrap_ci(values, iqm)),
        "values": values,
    }


def _number(name: str, value: float) -> str:
    if name == "frame":
        return f"{value:.2e}"
    # efficiencies are of the order of 1/frames
    return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:.2f}"
