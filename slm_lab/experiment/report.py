"""What is printed at the end of a trial: what it came to, where it lies, and what to type next."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slm_lab.experiment.paths import RunPaths
from slm_lab.lib.files import read_json
from slm_lab.lib.shell import command_line


def print_report(paths: RunPaths) -> None:
    """Print the end of a trial on stdout, from the files it left."""
    print("\n".join(report_lines(paths)))  # noqa: T201 - the result of the command


def report_lines(paths: RunPaths) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        paths: names a trial that has been analysed.
    """
    metrics = read_json(paths.trial_metrics)
    yield ""
    yield from _scores(metrics)
    if not metrics["over_seeds"]["total_reward_ma"]["values"]:
        yield "no episode has ended, so there is no score"
    yield ""
    graphs = _graphs(paths)
    if graphs:
        yield f"graphs     {graphs[0]}"
        yield from (f"           {graph}" for graph in graphs[1:])
    yield f"files      {paths.folder}"
    yield ""
    yield "next"
    for what, command in _next(paths, metrics["scalar"]["frame"]):
        yield f"  # {what}"
        yield f"  {command}"


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scores over the seeds."""
    for name, title in (("total_reward_ma", "average of the run"), ("final_total_reward", "at the end")):
        over = metrics["over_seeds"][name]
        count = len(over["values"])
        low, high = over["ci95"]
        interval = f"[{_number(low)}, {_number(high)}]" if count > 1 else "unknown"
        yield (
            f"{name:<18}  mean {_number(over['mean'])}  IQM {_number(over['iqm'])}  "
            f"95 % interval {interval}  ({count} seed{'s' * (count != 1)}; {title})"
        )
    yield f"{'random_baseline':<18}  {_number(metrics['random_baseline'])}  (mean return of random actions)"


def _graphs(paths: RunPaths) -> list[Path]:
    at_top = sorted(paths.folder.glob("*.html"))
    return [*at_top, paths.graph_dir] if any(paths.graph_dir.glob("*.html")) else at_top


def _next(paths: RunPaths, frame: float) -> list[tuple[str, str]]:
    folder = paths.folder
    start, longer = ("slm-lab", paths.spec, paths.spec_name), f"env.max_frame={2 * frame:.0f}"
    return [
        ("watch the best checkpoint play", command_line(*start, f"enjoy@{folder}", "--render")),
        ("train on, to twice the frames", command_line(*start, f"train@{folder}", "-s", longer)),
        ("every metric and graph again", command_line("slm-retro", folder)),
    ]


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: float | None) -> str:
    value = _nan(value)
    return "–" if not math.isfinite(value) else f"{value:.2f}"
