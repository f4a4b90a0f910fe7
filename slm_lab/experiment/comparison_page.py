"""What `slm-lab compare` leaves: the tables on the terminal, in Markdown and CSV, and the figures as HTML."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm_lab.experiment.benchmark import NONE, runs_table
from slm_lab.experiment.compare import (
    STATISTICS,
    Comparison,
    Estimate,
    aggregates,
    efficiency_curves,
    estimate,
    frames_of,
    improvements,
    profiles,
)
from slm_lab.experiment.graph import FRAMES
from slm_lab.lib.files import atomic_write, file_word
from slm_lab.lib.plot import GREY, PALETTE, Interval, Line, draw_pngs, interval_figure, line_figure, write_html
from slm_lab.lib.stats import iqm_score, mean_score
from slm_lab.lib.table import counted, csv_table, markdown_table, text_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

NORMALISED = "normalised score (0: random actions, 1: reference)"
ABOUT = """\
A score is `total_reward_ma` at the end of a run. Across environments it is normalised: 0 is what random actions get, 1
the reference score of the environment. In brackets, the 95 % stratified-bootstrap interval over the seeds. IQM: mean of
all seeds of all environments without the lowest and the highest quarter. After Agarwal et al. 2021, arXiv:2108.13264.
"""


@dataclass(frozen=True)
class Table:
    """A table of the page: its title, head and rows."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Summary:
    """All statistics of a comparison, computed once.

    Attributes:
        comparison: of what.
        aggregates: name → statistic → estimate.
        improvements: (x, y) → P(X > Y).
        thresholds: of the profiles [τ].
        profiles: name → share of runs above each threshold.
        curves: environment → name → (frames, IQM); None is all shared ones, normalised.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.aggregates = aggregates(comparison)
        self.improvements = improvements(comparison)
        self.thresholds, self.profiles = profiles(comparison)
        self.curves: dict[str | None, dict[str, tuple[np.ndarray, Estimate]]] = {
            env: efficiency_curves(comparison, env) for env in (None, *comparison.envs)
        }

    @property
    def color(self) -> Mapping[str, str]:
        """Name → colour, the same in every figure."""
        return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(self.comparison.names)}


def tables(summary: Summary) -> list[Table]:
    """Return the tables of the page."""
    comparison = summary.comparison
    made = []
    if summary.aggregates:
        rows = [
            [name, *(_text(found[title], 3) for title in STATISTICS)]
            for name, found in sorted(summary.aggregates.items(), key=lambda item: -float(item[1]["IQM"].value))
        ]
        made.append(
            Table(f"Across {counted(len(comparison.shared), 'environment')}, normalised", ["", *STATISTICS], rows)
        )
    if summary.improvements:
        pairs = [[f"{x} > {y}", _text(found, 2)] for (x, y), found in summary.improvements.items()]
        made.append(Table("Probability of improvement: a run of the first beats one of the second", ["", "P"], pairs))
    return [*made, *(_env_table(comparison, env) for env in comparison.envs)]


def _env_table(comparison: Comparison, env: str) -> Table:
    scores = {name: by_env[env] for name, by_env in comparison.scores.items() if env in by_env}
    rows = [
        [
            name,
            _text(estimate(mean_score, [seeds]), 1),
            _text(estimate(iqm_score, [seeds]), 1),
            str(seeds.size),
            frames_of(comparison, name, env),
        ]
        for name, seeds in scores.items()
    ]
    bounds = f"random actions {comparison.baselines[env]:g}, reference {comparison.references[env]:g}"
    return Table(f"{env} ({bounds})", ["", "mean", "IQM", "seeds", "frames"], rows)


def terminal_text(summary: Summary) -> str:
    """Return the tables for the terminal."""
    parts = [f"{table.title}\n{text_table(table.head, table.rows)}" for table in tables(summary)]
    if summary.comparison.notes:
        parts.append("notes\n" + "".join(f"  {note}\n" for note in summary.comparison.notes))
    return "\n".join(parts)


def markdown_page(summary: Summary, figures: Iterable[Path]) -> str:
    """Return the page in Markdown, with links to the figures beside it."""
    parts = ["# Comparison\n", ABOUT]
    for table in tables(summary):
        parts += [f"## {table.title}\n", markdown_table(table.head, table.rows)]
    parts += ["## Runs\n", runs_table([result for _, result in summary.comparison.results])]
    parts += ["## Figures\n", "".join(f"- [{figure.stem}]({figure.name})\n" for figure in figures)]
    if summary.comparison.notes:
        parts += ["## Notes\n", "".join(f"- {note}\n" for note in summary.comparison.notes)]
    return "\n".join(parts)


def write_all(summary: Summary, folder: Path) -> list[Path]:
    """Write page, CSV files and figures into a folder; return what was written.

    `comparison.md`; `scores.csv` (a row a seed), `aggregates.csv`, `improvement.csv`, `profiles.csv`, `curves.csv`;
    `aggregates.html`, `improvement.html`, `profiles.html`, `sample_efficiency.html` and one such for each environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("aggregates.*", "improvement.*", "profiles.*", "sample_efficiency*.*"):
        for left in folder.glob(pattern):  # by an earlier comparison, which may have had other environments
            left.unlink()
    figures = []
    for name, figure in _figures(summary):
        figures.append(folder / f"{name}.html")
        write_html(figure, figures[-1])
    files = {folder / f"{name}.csv": csv_table(head, rows) for name, (head, rows) in _csv_files(summary).items()}
    files[folder / "comparison.md"] = markdown_page(summary, figures)
    for file, text in files.items():
        atomic_write(file, text)
    return [*files, *figures, *draw_pngs(figures)]


# --- CSV

Rows = Iterable[Sequence[object]]


def _csv_files(summary: Summary) -> dict[str, tuple[list[str], Rows]]:
    comparison = summary.comparison
    scores = (
        (name, result.env, result.run, session, score, float(comparison.normalise(result.env, np.array(score))))
        for name, result in comparison.results
        for session, score in zip(result.sessions, result.scores, strict=True)
    )
    aggregated = (
        (name, statistic, *_cells(found))
        for name, by_statistic in summary.aggregates.items()
        for statistic, found in by_statistic.items()
    )
    improved = ((x, y, *_cells(found)) for (x, y), found in summary.improvements.items())
    shares = ((name, *row) for name, found in summary.profiles.items() for row in _rows(summary.thresholds, found))
    curves = (
        (env or "", name, *row)
        for env, by_name in summary.curves.items()
        for name, (frames, found) in by_name.items()
        for row in _rows(frames, found)
    )
    return {
        "scores": (["name", "environment", "run", "session", "score", "normalised"], scores),
        "aggregates": (["name", "statistic", "value", "low", "high"], aggregated),
        "improvement": (["x", "y", "probability", "low", "high"], improved),
        "profiles": (["name", "threshold", "share", "low", "high"], shares),
        "curves": (["environment", "name", "frame", "iqm", "low", "high"], curves),
    }


def _rows(x: np.ndarray, found: Estimate) -> Iterator[list[object]]:
    for row in zip(x.tolist(), found.value.tolist(), found.low.tolist(), found.high.tolist(), strict=True):
        if not math.isnan(row[1]):
            yield [_cell(value) for value in row]


def _cells(found: Estimate) -> list[object]:
    return [_cell(float(value)) for value in (found.value, found.low, found.high)]


def _cell(value: float) -> object:
    return "" if math.isnan(value) else value


# --- figures


def _figures(summary: Summary) -> Iterator[tuple[str, "go.Figure"]]:
    if summary.aggregates:
        yield "aggregates", _aggregates_figure(summary)
        yield "profiles", _profiles_figure(summary)
    if summary.improvements:
        yield "improvement", _improvement_figure(summary)
    for env, curves in summary.curves.items():
        if curves:
            yield "_".join(["sample_efficiency", *([file_word(env)] if env else [])]), _curves_figure(summary, env)


def _aggregates_figure(summary: Summary) -> "go.Figure":
    rows = [
        _interval(f"{name} · {title}", found, summary.color[name])
        for title in STATISTICS
        for name, by_statistic in summary.aggregates.items()
        for found in [by_statistic[title]]
    ]
    return interval_figure("Scores across environments, with 95 % intervals", NORMALISED, rows)


def _improvement_figure(summary: Summary) -> "go.Figure":
    rows = [_interval(f"{x} > {y}", found, summary.color[x]) for (x, y), found in summary.improvements.items()]
    figure = interval_figure("Probability of improvement, with 95 % intervals", "P(X > Y)", rows, mark=0.5)
    return figure.update_xaxes(range=[-0.02, 1.02])


def _profiles_figure(summary: Summary) -> "go.Figure":
    lines = [_line(summary.thresholds, found, name, summary) for name, found in summary.profiles.items()]
    return line_figure("Performance profiles", f"τ: {NORMALISED}", "share of runs with a score above τ", lines)


def _curves_figure(summary: Summary, env: str | None) -> "go.Figure":
    curves = summary.curves[env]
    lines = [_line(frames, found, name, summary) for name, (frames, found) in curves.items()]
    comparison = summary.comparison
    levels = (0.0, 1.0) if env is None else (comparison.baselines[env], comparison.references[env])
    end = max(frames[-1] for frames, _ in curves.values())
    bounds = [
        Line([0.0, end], [level, level], title, GREY, width=1.5, dash=dash)
        for level, title, dash in zip(levels, ("random actions", "reference"), ("dash", "dot"), strict=True)
    ]
    title = f"Sample efficiency: {env or 'across environments'} · IQM over the seeds, with 95 % intervals"
    return line_figure(title, FRAMES, NORMALISED if env is None else "mean return", [*bounds, *lines])


def _line(x: np.ndarray, found: Estimate, name: str, summary: Summary) -> Line:
    return Line(x, found.value, name, summary.color[name], band=(found.low, found.high))


def _interval(name: str, found: Estimate, color: str) -> Interval:
    return Interval(name, float(found.value), float(found.low), float(found.high), color)


def _text(found: Estimate, digits: int) -> str:
    value, low, high = (float(part) for part in (found.value, found.low, found.high))
    interval = NONE if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f} {interval}"
