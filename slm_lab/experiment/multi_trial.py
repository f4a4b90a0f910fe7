"""Several trials in one graph."""

from collections.abc import Sequence
from pathlib import Path

from slm_lab.experiment import graph
from slm_lab.experiment.analysis import trial_means
from slm_lab.experiment.benchmark import read_result, spec_of
from slm_lab.experiment.compare import name_runs
from slm_lab.experiment.paths import RunPaths, find_run
from slm_lab.lib.files import file_word
from slm_lab.lib.plot import draw_pngs
from slm_lab.spec.errors import SpecError


def plot_runs(
    folders: Sequence[str], data_dir: Path, out: Path, title: str | None = None, labels: Sequence[str] = ()
) -> list[Path]:
    """Draw the trials of some runs together: mean return over frames, as it is and as its moving average.

    Args:
        folders: names of run folders in `data_dir`, or paths of them.
        data_dir: folder of the runs.
        out: folder of the graphs, which begin with the title.
        title: by default the environments.
        labels: one for each run; by default the algorithms.

    Returns:
        the pages, and the PNGs where a browser is there to draw them.

    Raises:
        SpecError: no such run, no rows in one, or not as many labels as runs.
    """
    if not folders:
        raise SpecError("--folders names no run; write for example -f dqn_2026_01_31_235959,ppo_2026_01_31_235959")
    if labels and len(labels) != len(folders):
        raise SpecError(f"--labels: {len(labels)} for {len(folders)} folders; give one for each, or none")
    runs = [find_run(folder if Path(folder).exists() else data_dir / folder) for folder in folders]
    given = labels or [None] * len(runs)
    results = [(label, paths, read_result(paths)) for label, paths in zip(given, runs, strict=True)]
    named: dict[str, RunPaths] = {}
    for name, (paths, result) in name_runs(results):
        named[name if name not in named else f"{name} {result.run}"] = paths
    title = title or ", ".join(dict.fromkeys(result.env for _, _, result in results))
    stem = file_word(title)
    files = {name: out / f"{stem}_multi_trial_graph_{name}_vs_frames.html" for name in graph.RETURNS}
    means = {name: trial_means(paths, spec_of(paths)) for name, paths in named.items()}
    for name, found in means.items():
        if not all(values.size for _, values in found.values()):
            raise SpecError(f"{named[name].folder}: no returns in the rows of its sessions; there is nothing to draw")
    out.mkdir(parents=True, exist_ok=True)
    graph.draw_runs(files, title, means)
    return [*files.values(), *draw_pngs(list(files.values()))]
