"""A batch of runs: `{spec_file: {spec_name: mode}}`, one after another."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slm_lab.cli.run import Settings, parse_mode, run, train
from slm_lab.spec.errors import SpecError

DONE, FAILED = "done", "failed"


@dataclass
class Outcome:
    """What became of a run."""

    what: str
    status: str
    seconds: float


def run_job(file: Path, settings: Settings) -> int:
    """Run the entries of a job file in order; one that fails does not stop the rest.

    Returns:
        0 if all are done, else 1.
    """
    entries = read_job(file)
    outcomes: list[Outcome] = []
    try:
        for number, entry in enumerate(entries, start=1):
            _say(f"job {number}/{len(entries)}: {' '.join(entry)}")
            outcomes.extend(_attempts(*entry, settings))
    finally:  # also where Ctrl-C ends the batch
        _print_summary(outcomes)
    return 0 if all(outcome.status == DONE for outcome in outcomes) else 1


def read_job(file: Path) -> list[tuple[str, str, str]]:
    """Read a job file: JSON, in which comments and trailing commas are allowed.

    Returns:
        spec file, spec name and mode of every entry, in the order of the file.
    """
    import json5

    try:
        # a key that stands twice would silently replace the first
        job = json5.loads(file.read_text(encoding="utf-8"), allow_duplicate_keys=False)
    except OSError as error:
        raise SpecError(f"{file}: {error.strerror}; give --job a file {{spec_file: {{spec_name: mode}}}}") from None
    except ValueError as error:
        raise SpecError(f"{file}: not a job file: {error}") from None
    if not isinstance(job, dict) or not all(isinstance(modes, dict) for modes in job.values()):
        raise SpecError(f"{file}: a job file holds {{spec_file: {{spec_name: mode}}}}")
    if not any(job.values()):
        raise SpecError(f"{file}: names nothing to run; a job file holds {{spec_file: {{spec_name: mode}}}}")
    entries = [(spec_file, name, mode) for spec_file, modes in job.items() for name, mode in modes.items()]
    for spec_file, name, mode in entries:
        if not isinstance(mode, str):
            raise SpecError(f"{file}: {spec_file}: {name}: the mode is {mode!r}; write for example 'train'")
        try:
            parse_mode(mode)
        except SpecError as error:
            raise SpecError(f"{file}: {spec_file}: {name}: {error}") from None
    return entries


def _attempts(spec_file: str, spec_name: str, mode: str, settings: Settings) -> Iterator[Outcome]:
    """Run an entry; one of a spec with `spec_params` is a run for every combination of their values."""
    kind, target = parse_mode(mode)
    runs = [(spec_name, partial(run, spec_file, spec_name, mode, settings))]
    if kind in ("dev", "train") and target is None:
        from slm_lab.spec.loader import load_specs

        try:
            specs = load_specs(spec_file, spec_name, settings.sets)
        except SpecError:
            pass  # said by the run itself
        else:
            runs = [(spec.name, partial(train, spec, kind, settings)) for spec in specs]
    for name, action in runs:
        start = time.monotonic()
        what = f"{spec_file} {name} {mode}"
        status = _attempt(what, action)
        yield Outcome(what, status, time.monotonic() - start)


def _attempt(what: str, action: Callable[[], None]) -> str:
    from slm_lab.experiment.trial import Interrupted, TrialError

    try:
        action()
    except Interrupted:
        raise
    except (SpecError, TrialError) as error:
        _say(f"{what} failed: {error}")
    except Exception:  # a fault of the lab; the rest of the batch may be free of it
        _say(f"{what} failed: {traceback.format_exc()}")
    else:
        return DONE
    return FAILED


def _print_summary(outcomes: list[Outcome]) -> None:
    lines = [f"{one.status:<8}{_duration(one.seconds):>8}  {one.what}" for one in outcomes]
    done = sum(one.status == DONE for one in outcomes)
    print("\n".join(["", *lines, f"{done} done, {len(outcomes) - done} failed"]))  # noqa: T201


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _say(line: str) -> None:
    print(f"slm-lab: {line}", file=sys.stderr)  # noqa: T201
