"""One run: what the three words mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slm_lab.experiment.options import RunOptions
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.experiment.paths import RunPaths
    from slm_lab.spec import Spec

LATEST = "latest"


@dataclass(frozen=True)
class Settings:
    """The flags that hold for every run of a command line.

    Attributes:
        sets: `KEY=VALUE` texts.
        data_dir: folder of the runs.
        options: how to run.
        record: enjoy writes an mp4.
        episodes: that enjoy plays.
        serial: search without Ray.
        keep: of how many trials of a search the models are kept.
        ray_address: of the cluster that searches.
    """

    sets: Sequence[str] = ()
    data_dir: Path = Path("data")
    options: RunOptions = field(default_factory=RunOptions)
    record: bool = False
    episodes: int = 10
    serial: bool = False
    keep: int = 3
    ray_address: str | None = None

    @property
    def words(self) -> list[str]:
        """What is not by default, as words of a command line."""
        mine, plain = ({**vars(one), **vars(one.options), "data": one.data_dir} for one in (self, Settings()))
        words = []
        for name in sorted(mine.keys() - {"sets", "options", "data_dir"}):
            if mine[name] != plain[name]:
                flag = f"--{name.replace('_', '-')}"
                words.append(flag if mine[name] is True else f"{flag}={mine[name]}")
        return [*words, *(word for text in self.sets for word in ("-s", text))]


def run(spec_file: str, spec_name: str | None, mode: str, settings: Settings) -> "RunPaths":
    """Do what `SPEC_FILE SPEC_NAME MODE` asks for.

    Returns:
        the names of the run.

    Raises:
        SpecError: bad input.
        TrialError: the run failed.
        Interrupted: it was stopped, and saved.
    """
    kind, target = parse_mode(mode)
    if settings.record and kind != "enjoy":
        raise SpecError("--record: only MODE enjoy@RUN writes an mp4; leave it out")
    if kind == "search":
        return search(spec_file, spec_name, target, settings)
    if kind == "enjoy":
        return enjoy_run(spec_file, spec_name, target or LATEST, settings)
    if target is not None:
        return resume_run(spec_file, spec_name, target, settings)
    return train(_load(spec_file, spec_name, settings.sets), kind, settings)


def parse_mode(mode: str) -> tuple[str, str | None]:
    """Split a MODE at its first @ into a kind and a target; the target may hold an @ itself.

    >>> parse_mode("train@data/x@y")
    ('train', 'data/x@y')
    """
    kind, at, target = mode.partition("@")
    if kind not in ("dev", "train", "enjoy", "search") or (at and kind == "dev"):
        raise SpecError(
            f"MODE {mode!r} is none of dev, train, train@latest, train@RUN, enjoy@latest, enjoy@RUN, search, "
            "search@latest, search@RUN"
        )
    if at and not target:
        raise SpecError(f"MODE {mode!r} names no run; write {kind}@latest or {kind}@data/<run>")
    return kind, target or None


def train(spec: "Spec", mode: str, settings: Settings, resume: Path | None = None) -> "RunPaths":
    """Run a trial and print what came of it."""
    from slm_lab.experiment.report import print_report
    from slm_lab.experiment.trial import Trial

    trial = Trial(spec, mode, settings.data_dir, resume, settings.options)
    trial.run()
    print_report(trial.paths)
    return trial.paths


def resume_run(spec_file: str, spec_name: str | None, target: str, settings: Settings) -> "RunPaths":
    """Go on with a run, by the spec that was saved with it.

    Of the `KEY=VALUE` texts only paths into the spec count: the variables were filled in when the run began.
    """
    paths = find(spec_file, spec_name, target, settings, searches=False)
    if spec_name is not None and not f"{paths.spec_name}_".startswith(f"{spec_name}_"):
        raise SpecError(f"{paths.folder}: a run of {paths.spec_name!r}, not of {spec_name!r}")
    if paths.study.exists():
        raise SpecError(f"{paths.folder}: a search; go on with MODE search@{paths.folder}")
    return train(_load(paths.spec, paths.spec_name, _dotted(settings)), "train", settings, paths.folder)


def search(spec_file: str, spec_name: str | None, target: str | None, settings: Settings) -> "RunPaths":
    """Begin a search, or go on with one, and print what came of it.

    One that was interrupted is gone on with as well where the same command is given again.
    """
    from slm_lab.experiment.paths import find_run
    from slm_lab.experiment.search import Search, interrupted_search, latest_search
    from slm_lab.experiment.search_results import print_search

    if target in (None, LATEST):
        spec = _load(spec_file, spec_name, settings.sets if target is None else ())
        paths = latest_search(settings.data_dir, spec.name) if target else interrupted_search(settings.data_dir, spec)
        if target and paths is None:
            raise SpecError(f"no search of {spec.name!r} in {settings.data_dir}; begin one with MODE search")
    else:
        paths = find_run(target)
    if paths is not None:
        spec = _load(paths.spec, paths.spec_name, _dotted(settings))
    keys = {"serial": settings.serial, "keep": settings.keep, "address": settings.ray_address}
    folder = None if paths is None else paths.folder
    searching = Search(spec, settings.data_dir, folder, settings.options, **keys)
    searching.run()
    print_search(searching.paths, searching.resume_command())
    return searching.paths


def best(target: str, train_it: bool, settings: Settings) -> None:
    """Print the best trial of a search, or train it."""
    from slm_lab.experiment.paths import find_run
    from slm_lab.experiment.search_results import best_spec, print_best

    paths = find_run(target)
    if train_it:
        train(best_spec(paths, settings.sets), "train", settings)
    else:
        print_best(paths)


def _dotted(settings: Settings) -> list[str]:
    return [text for text in settings.sets if "." in text.partition("=")[0]]


def enjoy_run(spec_file: str, spec_name: str | None, target: str, settings: Settings) -> "RunPaths":
    """Play the best checkpoint of a run."""
    paths = find(spec_file, spec_name, target, settings)
    from slm_lab.experiment.enjoy import enjoy

    if paths.study.exists() and paths.session is None:
        from slm_lab.experiment.search_results import best_session

        paths = best_session(paths)
    played = paths.folder if paths.session is None else paths.session_spec
    enjoy(played, episodes=settings.episodes, render=settings.options.render, record=settings.record)
    return paths


def find(spec_file: str, spec_name: str | None, target: str, settings: Settings, searches: bool = True) -> "RunPaths":
    """Find the run that `@latest` or `@PATH` means; a path says it all, so then the first two words do not count.

    Without `searches`, `@latest` passes them over.
    """
    from slm_lab.experiment.paths import find_run, latest_run
    from slm_lab.experiment.trial import said_before

    if target != LATEST:
        return find_run(target)
    with said_before():  # or will be, of the spec that was saved with the run
        # -s env=… is part of the name
        name = _load(spec_file, spec_name, settings.sets).name
    paths = latest_run(settings.data_dir, name, searches=searches)
    if paths is None:
        longer = latest_run(settings.data_dir, name, longer=True)
        remedy = f"of {longer.spec_name!r} there is: {longer.folder}" if longer else "begin one with MODE train"
        if latest_run(settings.data_dir, name):
            remedy = "there is a search, which MODE search@latest goes on with"
        raise SpecError(f"no run of {name!r} in {settings.data_dir}; {remedy}")
    return paths


def _load(spec_file: str | Path, spec_name: str | None, sets: Sequence[str]) -> "Spec":
    from slm_lab.spec import load_spec

    return load_spec(spec_file, spec_name, sets)
