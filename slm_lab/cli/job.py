"""A batch of runs: `{spec_file: {spec_name: mode}}`, in the order of the file, one or several at once.

Every run has a process of its own, so that one that dies takes nothing with it.
"""

import io
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from slm_lab.cli.run import Settings, parse_mode, run
from slm_lab.experiment.progress import duration
from slm_lab.experiment.signals import StopRequest, interrupt_on_signals, stop_on_signals
from slm_lab.lib.device import keep_to_share
from slm_lab.lib.shell import command_line
from slm_lab.lib.table import text_table
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.experiment.paths import RunPaths

FORM = "a job file holds {spec_file: {spec_name: mode}}"
DONE, FAILED, STOPPED, NOT_BEGUN = "done", "failed", "stopped", "not begun"
REST = "_rest"
"""What the name of the file that is left of an interrupted batch ends with."""


@dataclass(frozen=True)
class Entry:
    """What to run, as in `slm-lab SPEC_FILE SPEC_NAME MODE -s KEY=VALUE`."""

    spec_file: str
    spec_name: str
    mode: str
    sets: tuple[str, ...] = ()

    @property
    def mode_and_sets(self) -> str:
        """The mode as a job file writes it."""
        return shlex.join([self.mode, *(word for text in self.sets for word in ("-s", text))])

    def __str__(self) -> str:
        return f"{self.spec_file} {self.spec_name} {self.mode_and_sets}"


@dataclass
class _Run:
    """An entry, and what became of it.

    Attributes:
        entry: what to run.
        place: in the batch, as in 2/14.
        status: DONE, FAILED, STOPPED or NOT_BEGUN.
        paths: of the run, as far as it is known.
        seconds: that it took.
    """

    entry: Entry
    place: str
    status: str = NOT_BEGUN
    paths: "RunPaths | None" = None
    seconds: float = math.nan

    @property
    def title(self) -> str:
        """Its place and its name."""
        return f"{self.place} {self.entry.spec_name if self.paths is None else self.paths.spec_name}"


@dataclass(frozen=True)
class _AtWork:
    """A run at work in another process, which says (status, reason, paths) at its end."""

    run: _Run
    slot: int
    process: BaseProcess
    inbox: Connection
    began: float


def run_job(file: Path, settings: Settings, parallel: int = 1) -> int:
    """Run the entries of a job file; one that fails does not stop the rest.

    Args:
        file: the job file.
        settings: for every entry; its KEY=VALUE texts win over those of an entry.
        parallel: how many run at once. They share out the cores.

    Returns:
        0 if all are done, else 1.

    Raises:
        SpecError: it is no job file.
        Interrupted: Ctrl-C or SIGTERM, after a clean save; a job file with the rest was written.
    """
    from slm_lab.experiment.trial import Interrupted

    entries = [one for entry in read_job(file) for one in _spread(entry, settings.sets)]
    runs = [_Run(entry, f"{number}/{len(entries)}") for number, entry in enumerate(entries, start=1)]
    with stop_on_signals() as stop:
        _run_all(runs, settings, min(parallel, len(runs)), stop)  # no share of the cores is for nobody
    print(_summary(runs))  # noqa: T201 - the result of the command
    rest = [run for run in runs if run.status in (STOPPED, NOT_BEGUN)]
    if rest:
        raise Interrupted(f"stopped and saved; go on with: {_write_rest(file, rest, settings, parallel)}")
    return 0 if all(run.status == DONE for run in runs) else 1


def read_job(file: Path) -> list[Entry]:
    """Read a job file: JSON, in which comments and trailing commas are allowed.

    A mode may be followed by `-s KEY=VALUE`, as on the command line; a list of modes is as many runs.

    Returns:
        the entries, in the order of the file.

    Raises:
        SpecError: it is no job file.
    """
    import json5

    try:
        # a key that stands twice would silently replace the first
        job = json5.loads(file.read_text(encoding="utf-8"), allow_duplicate_keys=False)
    except OSError as error:
        raise SpecError(f"{file}: {error.strerror}; give --job a file {{spec_file: {{spec_name: mode}}}}") from None
    except ValueError as error:
        raise SpecError(f"{file}: not a job file: {error}") from None
    if not isinstance(job, dict) or not all(isinstance(names, dict) for names in job.values()):
        raise SpecError(f"{file}: {FORM}")
    entries = []
    for spec_file, names in job.items():
        for name, modes in names.items():
            for mode in modes if isinstance(modes, list) else [modes]:
                try:
                    entries.append(Entry(spec_file, name, *_parse(mode)))
                except SpecError as error:
                    raise SpecError(f"{file}: {spec_file}: {name}: {error}") from None
    if not entries:
        raise SpecError(f"{file}: names nothing to run; {FORM}")
    return entries


def _parse(text: object) -> tuple[str, tuple[str, ...]]:
    """Split "train -s env=Hopper-v5" into mode and what it sets."""
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"the mode is {text!r}; write for example 'train'")
    try:
        mode, *words = shlex.split(text)
    except ValueError as error:
        raise SpecError(f"{text!r}: {error}") from None
    parse_mode(mode)
    flags, sets = words[::2], words[1::2]
    if len(flags) > len(sets) or any(flag not in ("-s", "--set") for flag in flags):
        raise SpecError(f"{text!r}: after the mode only -s KEY=VALUE may follow, as in 'train -s env=Hopper-v5'")
    return mode, tuple(sets)


def _spread(entry: Entry, sets: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry, or where its spec has `spec_params` one for every combination of their values."""
    from slm_lab.spec.loader import combinations

    kind, target = parse_mode(entry.mode)
    if kind == "enjoy" or target is not None:
        yield entry
        return
    try:
        picks = combinations(entry.spec_file, entry.spec_name, [*entry.sets, *sets])
    except SpecError:
        picks = [{}]  # said by the run itself
    for pick in picks:
        picked = [f"{key}={value}" for key, value in pick.items()]
        yield replace(entry, sets=tuple(dict.fromkeys([*entry.sets, *picked])))


# --- running them


def _run_all(runs: Iterable[_Run], settings: Settings, parallel: int, stop: StopRequest) -> None:
    waiting, at_work, told = list(runs), [], False
    while at_work or (waiting and not stop.requested):
        while waiting and len(at_work) < parallel and not stop.requested:
            slot = min(set(range(parallel)) - {one.slot for one in at_work})
            at_work.append(_begin(waiting.pop(0), settings, slot, parallel))
        if stop.requested and not told:
            told = True
            for one in at_work:
                one.process.terminate()  # SIGTERM: save and stop
        ready = wait([one.inbox for one in at_work], timeout=0.2)
        for one in [one for one in at_work if one.inbox in ready]:
            at_work.remove(one)
            _end(one, stop)


def _begin(run: _Run, settings: Settings, slot: int, parallel: int) -> _AtWork:
    from slm_lab.experiment.trial import process_context

    _say(f"job {run.title}: {run.entry}")
    context = process_context()
    inbox, outbox = context.Pipe(duplex=False)
    options = replace(settings.options, cuda_offset=settings.options.cuda_offset + slot)
    mine = replace(settings, options=options, sets=(*run.entry.sets, *settings.sets))
    process = context.Process(target=_run_process, args=(run.entry, mine, run.title, slot, parallel, outbox))
    process.start()
    outbox.close()  # the child's end is the only one left, so that its death is seen as end of file
    return _AtWork(run, slot, process, inbox, time.monotonic())


def _end(one: _AtWork, stop: StopRequest) -> None:
    """Read what became of a run; a process that died without a word has failed."""
    run = one.run
    try:
        run.status, reason, run.paths = one.inbox.recv()
        one.process.join()
    except (EOFError, OSError):
        one.process.join()
        run.status = STOPPED if stop.requested else FAILED
        reason = f"its process ended with exit code {one.process.exitcode} and no word; out of memory, or killed?"
    run.seconds = time.monotonic() - one.began
    _say(f"job {run.title}: {run.status} after {duration(run.seconds)}{reason and f': {reason}'}")


def _run_process(entry: Entry, settings: Settings, title: str, slot: int, parallel: int, outbox: Connection) -> None:
    """Run an entry in a process of its own."""
    from slm_lab.experiment.trial import Interrupted, TrialError
    from slm_lab.lib.logger import setup_logger

    threading.Thread(target=_follow_parent, daemon=True).start()
    outcome = (STOPPED, "", None)
    try:
        with interrupt_on_signals():
            if parallel > 1:
                keep_to_share(slot, parallel)
                sys.stdout, sys.stderr = (_Prefixed(stream, f"[{title}] ") for stream in (sys.stdout, sys.stderr))
            setup_logger(settings.options.log_level)
            outcome = (DONE, "", run(entry.spec_file, entry.spec_name, entry.mode, settings))
    except KeyboardInterrupt:
        pass
    except Interrupted as end:
        outcome = (STOPPED, str(end), end.paths)
    except TrialError as error:
        outcome = (FAILED, str(error), error.paths)
    except SpecError as error:
        outcome = (FAILED, str(error), None)
    except Exception:  # a fault of the lab; the rest of the batch may be free of it
        outcome = (FAILED, traceback.format_exc(), None)
    outbox.send(outcome)


def _follow_parent() -> None:
    """Stop, as by Ctrl-C, when the batch was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Prefixed(io.TextIOBase):
    """Passes whole lines on, each with a prefix."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream, self._prefix, self._partial = stream, prefix, ""

    def write(self, text: str, /) -> int:
        *lines, self._partial = (self._partial + text).split("\n")
        if lines:  # in one go, as others write there too
            self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)


# --- what is said


def _summary(runs: Sequence[_Run]) -> str:
    head = ["entry", "mode", "outcome", "score", "time", "run"]
    table = text_table(head, ([run.title, run.entry.mode, run.status, *_numbers(run), _folder(run)] for run in runs))
    counts = Counter(run.status for run in runs)
    totals = ", ".join(f"{counts[status]} {status}" for status in (DONE, FAILED, STOPPED, NOT_BEGUN) if counts[status])
    return f"\n{table}{totals}"


def _numbers(run: _Run) -> tuple[str, str]:
    trained = run.status == DONE and not run.entry.mode.startswith("enjoy")
    score = _score(run.paths) if trained and run.paths is not None else math.nan
    return f"{score:.2f}" if math.isfinite(score) else "–", duration(run.seconds)


def _score(paths: "RunPaths") -> float:
    """Return the mean over the seeds; of a search, that of its best trial."""
    from slm_lab.experiment.search_results import SCORE, best_trial
    from slm_lab.lib.files import read_json

    score = best_trial(paths).score if paths.study.exists() else read_json(paths.trial_metrics_scalar)[SCORE]
    return math.nan if score is None else score


def _folder(run: _Run) -> str:
    return "–" if run.paths is None else str(run.paths.folder)


def _write_rest(file: Path, rest: Iterable[_Run], settings: Settings, parallel: int) -> str:
    """Write a job file with what is left; return the command that runs it."""
    job: dict[str, dict[str, list[str]]] = {}
    for left in rest:
        entry, paths = left.entry, left.paths
        if paths is not None:
            kind = "search" if paths.study.exists() else "train"
            entry = Entry(str(paths.spec), paths.spec_name, f"{kind}@{paths.folder}")
        job.setdefault(entry.spec_file, {}).setdefault(entry.spec_name, []).append(entry.mode_and_sets)
    new = settings.data_dir / f"{file.stem.removesuffix(REST)}{REST}.json"
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
    side_by_side = [f"--parallel={parallel}"] if parallel > 1 else []
    return command_line("slm-lab", "--job", new, *side_by_side, *settings.words)


def _say(line: str) -> None:
    print(f"slm-lab: {line}", file=sys.stderr)  # noqa: T201
