"""Every metric and graph of a run again, from its rows and specs alone."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loguru import logger

from slm_lab.experiment import graph
from slm_lab.experiment.analysis import analyze_session, analyze_trial, metrics_line
from slm_lab.experiment.baseline import baseline_key, random_baseline, stored_baseline
from slm_lab.experiment.paths import RunPaths, find_run, read_spec
from slm_lab.experiment.search_results import FAILED, draw_results, read_table, write_table
from slm_lab.lib.table import counted
from slm_lab.spec.errors import SpecError


@dataclass
class RetroSummary:
    """What was rebuilt.

    Attributes:
        paths: of the run.
        sessions: how many sessions were rebuilt.
        trials: trial index → metrics as `analyze_trial` returns them.
        pngs: how many graphs have a PNG beside them.
        problems: what was missing or spoilt, one line each; these were warned of as well.
    """

    paths: RunPaths
    sessions: int = 0
    trials: dict[int, dict[str, Any]] = field(default_factory=dict)
    pngs: int = 0
    problems: list[str] = field(default_factory=list)


def retro(target: str | Path) -> RetroSummary:
    """Rebuild all metrics and graphs of a run.

    What is missing or half-written is named in a warning, and the rest is rebuilt.

    Args:
        target: folder of the run, or a spec file in it.

    Raises:
        SpecError: it is not the folder of a run, or there are no rows in it.
    """
    paths = find_run(target)
    summary = RetroSummary(paths)
    trials = _trials(paths)
    if not trials:
        raise SpecError(f"{paths.folder}: no rows of any session in info/; there is nothing to rebuild from")
    for folder in (paths.info_dir, paths.graph_dir):
        folder.mkdir(exist_ok=True)
    for trial, sessions in trials.items():
        _rebuild_trial(paths.for_trial(trial), sessions, summary)
    for trial in sorted(_planned(paths) - trials.keys()):
        _report(summary, f"trial {trial}: no rows of any of its sessions")
    _draw_together(summary)
    if any(file.exists() for file in (paths.study, paths.trial_data_dict, paths.experiment_df)):
        _rebuild_search(summary)
    what = f"{counted(summary.sessions, 'session')} of {counted(len(summary.trials), 'trial')}"
    logger.info("{}: rebuilt {}", paths.folder, what)
    summary.pngs = graph.draw_run_pngs(paths)
    return summary


def _trials(paths: RunPaths) -> dict[int, set[int]]:
    """Find trial index → the sessions that have rows."""
    # anchored at the whole spec name, which may itself hold "_t0" or "_s1"
    pattern = re.compile(rf"{re.escape(paths.spec_name)}_t(\d+)_s(\d+)_session_df_train\.csv")
    trials: dict[int, set[int]] = {}
    for file in paths.info_dir.glob("*_session_df_train.csv"):
        if match := pattern.fullmatch(file.name):
            trials.setdefault(int(match[1]), set()).add(int(match[2]))
    return dict(sorted(trials.items()))


def _planned(paths: RunPaths) -> set[int]:
    """Find the trials that have a spec."""
    pattern = re.compile(rf"{re.escape(paths.spec_name)}_t(\d+)_spec\.json")
    return {int(match[1]) for file in paths.folder.glob("*_spec.json") if (match := pattern.fullmatch(file.name))}


def _draw_together(summary: RetroSummary) -> None:
    """Draw the trials of a search in one graph: the mean over the seeds of each."""
    curves = {
        f"trial {trial}": {name: (local["frames"], local[name][None]) for name in graph.RETURNS}
        for trial, metrics in summary.trials.items()
        if (local := metrics["local"])["frames"].size
    }
    graph.draw_search(summary.paths, curves)


def _rebuild_search(summary: RetroSummary) -> None:
    """Put the metrics into the table of a search again, and draw its graphs; what was tried stands in the table."""
    paths = summary.paths
    if not paths.study.exists():
        _report(summary, f"{paths.study}: missing, and not made of rows: the search cannot go on")
    table, left = paths.trial_data_dict, "the table of the search and its graphs are left as they were"
    try:
        rows = read_table(paths)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        _report(summary, f"{table}: no whole table in it ({type(error).__name__}: {error}); {left}")
        return
    if not rows:
        _report(summary, f"{table}: missing; {left}")
        return
    # a trial that failed has no score, whatever its rows say
    anew = {row.trial for row in rows if row.state != FAILED} & summary.trials.keys()
    scalars = {trial: summary.trials[trial]["scalar"] for trial in anew}
    write_table(paths, [replace(row, metrics=scalars.get(row.trial, row.metrics)) for row in rows])
    draw_results(paths)


def _rebuild_trial(paths: RunPaths, sessions: set[int], summary: RetroSummary) -> None:
    spec = _read_spec(paths, summary)
    if spec is None:
        return
    baseline, rigorous = _baseline(spec, paths), bool(spec["meta"].get("rigorous_eval"))
    for index in sorted(set(range(spec["meta"].get("max_session", 1))) - sessions):
        summary.problems.append(f"{paths.for_session(index).session_df('train')}: missing")  # analyze_trial warns
    for index in sorted(sessions):
        session = paths.for_session(index)
        try:
            scalars = analyze_session(session, baseline, rigorous)
        except (OSError, ValueError) as error:
            _report(summary, f"session {index} of trial {paths.trial}: {error}")
            continue
        summary.sessions += any(not math.isnan(scalar["frame"]) for scalar in scalars.values())
        for mode, scalar in scalars.items():
            if (mode == "train" or rigorous) and math.isnan(scalar["total_reward_ma"]):
                _report(summary, _fault(session.session_df(mode), scalar))
    metrics = analyze_trial(paths, spec, baseline)
    if not metrics["sessions"]:
        _report(summary, f"trial {paths.trial}: no session of it has a row; its metrics are left as they were")
        return
    summary.trials[paths.trial] = metrics
    logger.info("{} {}", paths.trial_prefix, metrics_line(metrics["scalar"]))


def _fault(file: Path, scalar: Mapping[str, float]) -> str:
    """Say why a file of rows gives no score."""
    if not file.exists():
        return f"{file}: missing"
    if not math.isnan(scalar["frame"]):
        return f"{file}: no return in its rows"
    what = "no whole row in it" if file.stat().st_size else "empty"
    return f"{file}: {what}; what was made of it before is left as it was"


def _read_spec(paths: RunPaths, summary: RetroSummary) -> dict[str, Any] | None:
    """Read the trial's spec, or the run's where that one is missing or spoilt."""
    for file in (paths.trial_spec, paths.spec):
        try:
            spec = read_spec(file)
        except FileNotFoundError:
            _report(summary, f"{file}: missing")
        except (OSError, ValueError) as error:
            _report(summary, f"{file}: no whole spec in it: {error}")
        else:
            return spec
    _report(summary, f"trial {paths.trial}: left out, as no spec of it can be read")
    return None


def _baseline(spec: Mapping[str, Any], paths: RunPaths) -> float:
    """Return the random baseline of a spec's environment, by the name that it has today."""
    from slm_lab.spec import EnvSpec
    from slm_lab.spec.upgrade import upgrade

    data_dir = paths.folder.parent
    try:
        return random_baseline(EnvSpec.model_validate(upgrade({"env": spec["env"]})["env"]), data_dir)
    except (SpecError, ValueError) as error:  # a spec of another version: its rows are as good as ever
        logger.warning("{}: not an environment of this version: {}", paths.trial_spec, " ".join(str(error).split()))
        return stored_baseline(baseline_key(spec["env"].get("name", ""), {}), data_dir) or 0.0


def _report(summary: RetroSummary, problem: str) -> None:
    logger.warning("{}", problem)
    summary.problems.append(problem)
