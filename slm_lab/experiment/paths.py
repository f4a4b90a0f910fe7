"""Where everything of a run lies: one folder per run, and every file name made here.

data/{spec}_{YYYY_MM_DD_HHMMSS}/
    {spec}_spec.json  {spec}_t0_spec.json  {spec}_t0_s0_spec.json  {spec}_t0_trial_metrics_scalar.json
    {spec}_t0_trial_graph_mean_returns{,_ma}_vs_frames.html
    info/  rows and metrics      model/  checkpoints      graph/  all graphs      log/  what was printed
data/@latest → the newest of them
"""

import glob
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from slm_lab.lib.files import read_json
from slm_lab.spec.errors import SpecError

STAMP = "%Y_%m_%d_%H%M%S"
STAMP_PATTERN = r"\d{4}_\d{2}_\d{2}_\d{6}"
LATEST = "@latest"


@dataclass(frozen=True)
class RunPaths:
    """Names every file of a run, of one trial in it, and of one session in that.

    Attributes:
        folder: the run's folder.
        spec_name: name of the spec, which every file begins with.
        trial: index of the trial.
        session: index of the session; None where no session is meant.
    """

    folder: Path
    spec_name: str
    trial: int = 0
    session: int | None = None

    def for_trial(self, trial: int) -> "RunPaths":
        """Return the names of another trial."""
        return replace(self, trial=trial, session=None)

    def for_session(self, session: int) -> "RunPaths":
        """Return the names of a session of this trial."""
        return replace(self, session=session)

    @property
    def info_dir(self) -> Path:
        """Rows and metrics."""
        return self.folder / "info"

    @property
    def model_dir(self) -> Path:
        """Checkpoints."""
        return self.folder / "model"

    @property
    def graph_dir(self) -> Path:
        """Graphs."""
        return self.folder / "graph"

    @property
    def log_dir(self) -> Path:
        """What was printed."""
        return self.folder / "log"

    @property
    def trial_prefix(self) -> str:
        """`{spec}_t0`."""
        return f"{self.spec_name}_t{self.trial}"

    @property
    def session_prefix(self) -> str:
        """`{spec}_t0_s0`."""
        if self.session is None:
            raise ValueError("no session is meant here; take for_session(index) first")
        return f"{self.trial_prefix}_s{self.session}"

    # --- specs

    @property
    def spec(self) -> Path:
        """The spec as it was asked for."""
        return self.folder / f"{self.spec_name}_spec.json"

    @property
    def trial_spec(self) -> Path:
        """The spec of the trial, which a search may have changed."""
        return self.folder / f"{self.trial_prefix}_spec.json"

    @property
    def session_spec(self) -> Path:
        """The spec of the session."""
        return self.folder / f"{self.session_prefix}_spec.json"

    # --- checkpoints

    def checkpoint_stem(self, best: bool = False) -> str:
        """What the names of the session's checkpoints begin with; `-{frame}` follows."""
        return f"{self.session_prefix}_ckpt" + "-best" * best

    # --- rows and metrics; mode is "train" or "eval"

    def session_df(self, mode: str) -> Path:
        """Rows logged by the session."""
        return self.info_dir / f"{self.session_prefix}_session_df_{mode}.csv"

    def session_metrics(self, mode: str) -> Path:
        """Scalar metrics and their series."""
        return self.info_dir / f"{self.session_prefix}_session_metrics_{mode}.json"

    def session_metrics_scalar(self, mode: str) -> Path:
        """Scalar metrics alone."""
        return self.info_dir / f"{self.session_prefix}_session_metrics_scalar_{mode}.json"

    @property
    def trial_metrics(self) -> Path:
        """Scalar metrics of the trial, their series, and what each seed came to."""
        return self.info_dir / f"{self.trial_prefix}_trial_metrics.json"

    @property
    def trial_metrics_scalar(self) -> Path:
        """Scalar metrics of the trial alone."""
        return self.info_dir / f"{self.trial_prefix}_trial_metrics_scalar.json"

    @property
    def trial_metrics_scalar_top(self) -> Path:
        """The same at the top of the folder, where it is met first."""
        return self.folder / self.trial_metrics_scalar.name

    @property
    def derived(self) -> Path:
        """What the trial does not have from its spec: versions, commit, machine."""
        return self.info_dir / f"{self.trial_prefix}_derived.json"

    @property
    def trial_data_dict(self) -> Path:
        """Of a search: trial → configuration and metrics."""
        return self.info_dir / f"{self.spec_name}_trial_data_dict.json"

    @property
    def experiment_df(self) -> Path:
        """Of a search: one row a trial."""
        return self.info_dir / f"{self.spec_name}_experiment_df.csv"

    @property
    def experiment_df_top(self) -> Path:
        """The same at the top of the folder."""
        return self.folder / self.experiment_df.name

    @property
    def study(self) -> Path:
        """Of a search: the Optuna study, which says what was tried; where it is not, the run is no search."""
        return self.folder / f"{self.spec_name}_study.log"

    # --- graphs; the name says what over what, e.g. "mean_returns_vs_frames"

    def session_graph(self, mode: str, name: str) -> Path:
        """A graph of one session."""
        return self.graph_dir / f"{self.session_prefix}_session_graph_{mode}_{name}.html"

    def trial_graph(self, name: str) -> Path:
        """A graph over the seeds of the trial."""
        return self.graph_dir / f"{self.trial_prefix}_trial_graph_{name}.html"

    def trial_graph_top(self, name: str) -> Path:
        """The same at the top of the folder."""
        return self.folder / self.trial_graph(name).name

    def multi_trial_graph(self, name: str) -> Path:
        """Of a search: the trials together."""
        return self.graph_dir / f"{self.spec_name}_multi_trial_graph_{name}.html"

    def experiment_graph(self, name: str = "") -> Path:
        """A graph of a search; without a name: metrics over what was searched."""
        return self.graph_dir / f"{self.spec_name}_experiment_graph{name and f'_{name}'}.html"

    # --- logs

    @property
    def run_log(self) -> Path:
        """What the run printed."""
        return self.log_dir / f"{self.spec_name}.log"

    @property
    def trial_log(self) -> Path:
        """What the trial printed."""
        return self.log_dir / f"{self.trial_prefix}.log"

    @property
    def shared_memory(self) -> Path:
        """What the workers of a trial have in common while they run (`meta.distributed`)."""
        return self.log_dir / f".{self.trial_prefix}.shared"

    @property
    def session_log(self) -> Path:
        """What the session printed."""
        return self.log_dir / f"{self.session_prefix}.log"


def new_run(data_dir: str | Path, spec_name: str) -> RunPaths:
    """Make the folder of a new run, and point `data_dir/@latest` at it.

    Runs that begin within one second get consecutive seconds: each has its own folder, and they sort as they began.

    Raises:
        SpecError: nothing can be written there.
    """
    data_dir = Path(data_dir)
    try:
        paths = RunPaths(_new_folder(data_dir, spec_name), spec_name)
    except OSError as error:
        remedy = "name a folder that can be written, e.g. --data data"
        raise SpecError(f"--data {data_dir}: no run can be written there: {error.strerror}; {remedy}") from error
    for sub in (paths.info_dir, paths.model_dir, paths.graph_dir, paths.log_dir):
        sub.mkdir()
    _point_latest(data_dir, paths.folder.name)
    return paths


def _new_folder(data_dir: Path, spec_name: str) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    began = datetime.now()
    while True:
        folder = data_dir / f"{spec_name}_{began.strftime(STAMP)}"
        try:
            folder.mkdir()
        except FileExistsError:
            began += timedelta(seconds=1)
        else:
            return folder


def latest_run(
    data_dir: str | Path, spec_name: str | None = None, *, longer: bool = False, searches: bool = True
) -> RunPaths | None:
    """Return the newest run of exactly this spec name, or of any with None; None where there is none.

    With `longer`, of a name that goes on with "_" after it, as -s env=… makes them. Without `searches`, only a trial
    that was run by itself.

    The stamp in the name decides, not the file times, which copying changes.
    """
    runs = [(match[2], RunPaths(folder, match[1])) for folder, match in _runs(Path(data_dir))]
    if spec_name is not None:
        runs = [
            (stamp, run)
            for stamp, run in runs
            if (run.spec_name.startswith(f"{spec_name}_") if longer else run.spec_name == spec_name)
        ]
    runs = [(stamp, run) for stamp, run in runs if searches or not run.study.exists()]
    return max(runs, key=lambda run: (run[0], run[1].spec_name))[1] if runs else None


def runs_in(data_dir: str | Path) -> list[RunPaths]:
    """Return all runs in a folder of runs, by name."""
    return sorted((RunPaths(folder, match[1]) for folder, match in _runs(Path(data_dir))), key=lambda run: run.folder)


def find_run(target: str | Path) -> RunPaths:
    """Find the run that a path means.

    Args:
        target: the folder of a run; or one of its `…_spec.json` files, which may name a trial and a session as well;
            or `…/@latest`.

    Raises:
        SpecError: no run is there.
    """
    target = _follow_latest(Path(target))
    if not target.exists():
        raise SpecError(f"{target}: no such file or folder; name the folder of a run, e.g. data/dqn_2026_01_31_235959")
    folder = target if target.is_dir() else target.parent
    spec_name = _spec_name(folder)
    if spec_name is None:
        raise SpecError(f"{folder}: not the folder of a run, as there is no {{spec}}_spec.json in it")
    if target.is_dir():
        return RunPaths(folder, spec_name)
    match = re.fullmatch(rf"{re.escape(spec_name)}(?:_t(\d+)(?:_s(\d+))?)?_spec\.json", target.name)
    if match is None:
        raise SpecError(f"{target}: not a spec file of the run {spec_name}; name {spec_name}_spec.json or the folder")
    trial, session = match.groups()
    return RunPaths(folder, spec_name, int(trial or 0), None if session is None else int(session))


def read_spec(file: str | Path) -> dict[str, Any]:
    """Read a spec file of a run and return the spec as it stands there, unchecked.

    It is `{spec name: spec}`; a run of an older lab has the spec alone, with its agent and environment in lists of one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no whole spec.
    """
    content = read_json(file)
    specs = [content] if _is_spec(content) else list(content.values()) if isinstance(content, dict) else []
    if len(specs) == 1 and _is_spec(specs[0]):
        spec = {key: value[0] if _is_list_of_one(value) else value for key, value in specs[0].items()}
        if all(isinstance(spec[key], dict) for key in ("env", "meta")):
            return spec
    raise ValueError(f"{file}: not one whole spec")


def _is_spec(content: Any) -> bool:
    return isinstance(content, dict) and {"env", "meta"} <= content.keys()


def _is_list_of_one(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _runs(data_dir: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for folder in data_dir.glob("*"):
        match = re.fullmatch(rf"(.+)_({STAMP_PATTERN})", folder.name)
        if match and folder.is_dir() and not folder.is_symlink():
            yield folder, match


def _spec_name(folder: Path) -> str | None:
    """Tell the spec name of a run: from the folder's name, or, where that was changed, from the spec file's."""
    # a spec may itself be called "…_t0" or "…_s1", so a file name alone does not say where the spec's name ends
    match = re.fullmatch(rf"(.+)_{STAMP_PATTERN}", folder.resolve().name)
    if match and any(folder.glob(f"{glob.escape(match[1])}_*spec.json")):
        return match[1]
    files = sorted(folder.glob("*_spec.json"), key=lambda file: len(file.name))
    return _name_in(files[0]) if files else None


def _name_in(file: Path) -> str:
    stem = file.name.removesuffix("_spec.json")
    try:
        content = read_json(file)
        names = [content["name"]] if _is_spec(content) and "name" in content else list(content)
    except (OSError, ValueError, TypeError):
        return stem
    return names[0] if len(names) == 1 and stem.startswith(names[0]) else stem


def discard_run(paths: RunPaths) -> None:
    """Delete the folder of a run in which nothing has run; `@latest` is the run before again."""
    shutil.rmtree(paths.folder)
    data_dir = paths.folder.parent
    before = latest_run(data_dir)
    if before is not None:
        _point_latest(data_dir, before.folder.name)
    else:
        (data_dir / LATEST).unlink(missing_ok=True)


def _point_latest(data_dir: Path, name: str) -> None:
    aside = data_dir / f".{LATEST}.{os.getpid()}"
    try:
        aside.symlink_to(name, target_is_directory=True)
    except (OSError, NotImplementedError):
        aside.write_text(name + "\n")  # a file system without links: the name stands in a file
    try:
        aside.replace(data_dir / LATEST)
    except OSError:  # somebody's folder of that name: the run matters more than the pointer
        aside.unlink()


def _follow_latest(target: Path) -> Path:
    if target.name != LATEST:
        return target
    if target.is_file():
        return target.parent / target.read_text().strip()
    return target.resolve()
