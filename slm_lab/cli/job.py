"""A batch of runs: `{spec_file: {spec_name: mode}}`, one after another."""

import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from slm_lab.cli.run import Settings, parse_mode, run, train
from slm_lab.spec.errors import SpecError

DONE, FAILED = "done", "failed"


@dataclass
class Outcome:
    """What became of an entry."""

    spec_file: str
    spec_name: str
    mode: str
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
            outcomes.append(_run_entry(*entry, settings))
    finally:
        # also when Ctrl-C ends the batch
        _print_summary(outcomes, len(entries))
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
    entries = [(spec_file, name, mode) for spec_file, modes in job.items() for name, mode in modes.items()]
    for spec_file, name, mode in entries:
        if not isinstance(mode, str):
            raise SpecError(f"{file}: {spec_file}: {name}: the mode is {mode!r}; write for example 'train'")
        parse_mode(mode)
    return entries


def _run_entry(spec_file: str, spec_name: str, mode: str, settings: Settings) -> Outcome:
    from slm_lab.experiment.trial import TrialError

    start = time.monotonic()
    status = DONE
    try:
        run_expanded(spec_file, spec_name, mode, settings)
    except (SpecError, TrialError) as error:
        status = FAILED
        _say(f"{spec_file} {spec_name} {mode} failed: {error}")
    except Exception:  # a fault of the lab; the rest of the batch may be free of it
        status = FAILED
        traceback.print_exc()
        _say(f"{spec_file} {spec_name} {mode} failed")
    return Outcome(spec_file, spec_name, mode, status, time.monotonic() - start)
