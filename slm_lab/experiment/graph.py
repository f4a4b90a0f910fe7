"""The graphs of a run: what is drawn, and how it is named."""

import glob
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slm_lab.experiment.paths import RunPaths
from slm_lab.lib.plot import BLUE, GREEN, GREY, ORANGE, PALETTE, VERMILION, Line, draw_pngs, line_figure, write_html

FRAMES = "frames (environment steps over all environments)"
RETURNS = {
    "mean_returns": "mean return (last ≤ 100 episodes)",
    "mean_returns_ma": "mean return, averaged over the last ≤ 100 rows",
}
# column → (y title, colour); drawn against the frame where the column is there
COLUMNS = {
    "loss": ("loss", VERMILION),
    "explore_var": ("exploration variable (ε or temperature)", ORANGE),
    "entropy": ("entropy of the policy (nats)", GREEN),
}

Series = Mapping[str, np.ndarray]


def draw_session(paths: RunPaths, mode: str, rows: Series, local: Series, baseline: float) -> None:
    """Draw the graphs of one session.

    Args:
        paths: names the session.
        mode: "train" or "eval".
        rows: columns of the rows file [rows].
        local: series of the session's metrics.
        baseline: mean return of a random policy.
    """
    kind = "training" if mode == "train" else "evaluation"
    title = f"{paths.spec_name} · trial {paths.trial} · session {paths.session} · {kind}"
    for name, y_title in RETURNS.items():
        lines = [_baseline_line(local["frames"], baseline), Line(local["frames"], local[name], "session", BLUE)]
        write_html(line_figure(title, FRAMES, y_title, lines), paths.session_graph(mode, f"{name}_vs_frames"))
    if mode == "eval":
        return
    for column, (y_title, color) in COLUMNS.items():
        if column in rows and np.isfinite(rows[column]).any():
            figure = line_figure(title, FRAMES, y_title, [Line(rows["frame"], rows[column], color=color)])
            write_html(figure, paths.session_graph(mode, f"{column}_vs_frame"))


def draw_trial(
    paths: RunPaths, sessions: Mapping[int, Series], means: Mapping[str, tuple[np.ndarray, np.ndarray]], baseline: float
) -> None:
    """Draw the graphs of a trial: every seed, their mean, and one standard deviation around it.

    Args:
        paths: names the trial.
        sessions: session index → series of its metrics.
        means: "mean_returns" and "mean_returns_ma" → (frames [N], values [sessions, N]) on the frames that all have.
        baseline: mean return of a random policy.
    """
    title = f"{paths.spec_name} · trial {paths.trial} · {len(sessions)} session{'s' * (len(sessions) != 1)}"
    for name, y_title in RETURNS.items():
        frames, values = means[name]
        lines = [_baseline_line(frames, baseline)]
        if len(sessions) > 1:
            lines += [
                Line(local["frames"], local[name], "each session" if first else None, BLUE, width=1, opacity=0.35)
                for first, local in zip([True] + [False] * len(sessions), sessions.values(), strict=False)
            ]
            mean, band = _mean_and_band(values)
            lines.append(Line(frames, mean, "mean ± 1 std over sessions", BLUE, width=2.5, band=band))
        else:
            lines += [Line(frames, value, "session", BLUE) for value in values]
        figure = line_figure(title, FRAMES, y_title, lines)
        write_html(figure, paths.trial_graph(f"{name}_vs_frames"))
        write_html(figure, paths.trial_graph_top(f"{name}_vs_frames"))


def draw_runs(
    files: Mapping[str, Path], title: str, runs: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
) -> None:
    """Draw several trials together: the mean over the seeds of each, and one standard deviation around it.

    Args:
        files: "mean_returns" and "mean_returns_ma" → page.
        title: of both.
        runs: name of the trial → the same → (frames [N], values [sessions, N]) on the frames that all its seeds have.
    """
    for name, file in files.items():
        lines = []
        for place, (label, means) in enumerate(runs.items()):
            frames, values = means[name]
            mean, band = _mean_and_band(values)
            lines.append(Line(frames, mean, label, PALETTE[place % len(PALETTE)], band=band))
        write_html(line_figure(title, FRAMES, RETURNS[name], lines), file)


def draw_search(paths: RunPaths, means: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> None:
    """Draw the trials of a search in one graph: the mean over the seeds of each; nothing where there is only one.

    Args:
        paths: names the run.
        means: name of the trial → as of `draw_runs`.
    """
    if len(means) > 1:
        curves = {
            trial: {name: (frames, values.mean(axis=0, keepdims=True)) for name, (frames, values) in found.items()}
            for trial, found in means.items()
        }
        files = {name: paths.multi_trial_graph(f"{name}_vs_frames") for name in RETURNS}
        draw_runs(files, f"{paths.spec_name} · {len(curves)} trials", curves)


def _mean_and_band(values: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Return the mean over the seeds of values [sessions, N], and from two seeds on one deviation to both sides."""
    mean = values.mean(axis=0)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else None
    return mean, None if spread is None else (mean - spread, mean + spread)


def draw_run_pngs(paths: RunPaths) -> int:
    """Draw a PNG beside every graph of the run, where a browser is there to draw it; tell how many there are now.

    Takes seconds, so it is called once, when the training is over. Never raises.
    """
    name = f"{glob.escape(paths.spec_name)}_*_graph*.html"
    pages = [*paths.folder.glob(name), *paths.graph_dir.glob(name)]
    # the graphs of trials first: they are looked at, should the time be up before all are done
    return len(draw_pngs(sorted(pages, key=lambda page: ("_trial_graph_" not in page.name, page))))


def draw_search_pngs(paths: RunPaths) -> None:
    """Draw a PNG beside every graph of a search as a whole, as `draw_run_pngs` does of a run."""
    names = (f"{glob.escape(paths.spec_name)}_{kind}_graph*.html" for kind in ("experiment", "multi_trial"))
    draw_pngs([page for name in names for page in sorted(paths.graph_dir.glob(name))])


def _baseline_line(frames: np.ndarray, baseline: float) -> Line:
    end = frames[-1] if frames.size else 1.0
    return Line([0.0, end], [baseline, baseline], "random policy", GREY, width=1.5, dash="dash")
