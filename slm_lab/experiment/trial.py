"""A trial: the same spec with several seeds, each a session in a process of its own."""

import multiprocessing
import os
import platform
import secrets
import subprocess
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from loguru import logger

from slm_lab.experiment.lock import only_one
from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.paths import RunPaths, discard_run, find_run, new_run
from slm_lab.experiment.progress import Progress
from slm_lab.experiment.signals import StopRequest, signals_held_back, stop_on_signals
from slm_lab.lib.device import available_cores
from slm_lab.lib.files import atomic_write, write_json
from slm_lab.lib.logger import setup_logger
from slm_lab.lib.shell import command_line
from slm_lab.spec import Spec, SpecError, load_spec

PACKAGES = ("slm-lab", "torch", "numpy", "gymnasium", "ale-py", "mujoco")
PRELOADED = ["slm_lab.experiment.session", "slm_lab.agent.net.numpy_step", "gymnasium.wrappers"]
"""What every session needs, imported once."""
FINISHED = ("finished", "")
UNGUARDED = 78
"""Exit code of a child in which the main program began a trial on being imported (EX_CONFIG of sysexits.h)."""


class TrialError(RuntimeError):
    """A session failed; the text has its traceback."""

    paths: RunPaths | None = None
    """Of the run."""


class Interrupted(Exception):  # noqa: N818 - as KeyboardInterrupt: it ends a run, but nothing went wrong
    """The run was stopped from outside, after everything was saved; the text tells how to go on."""

    paths: RunPaths | None = None
    """Of the run."""


class Run(Protocol):
    """A trial or a search."""

    paths: RunPaths
    resume: RunPaths | None

    def resume_command(self) -> str:
        """Return the command that goes on with it."""
        ...


@contextmanager
def said_before() -> Generator[None]:
    """Keep quiet what checking a spec has to say, where it was checked before and said so."""
    logger.disable("slm_lab.spec")
    try:
        yield
    finally:
        logger.enable("slm_lab.spec")


@contextmanager
def at_work(run: Run, lock: str) -> Generator[None]:
    """Hold the lock of a run. Its end tells which run it was, and one that never began leaves nothing.

    Args:
        run: what runs.
        lock: name of the lock in the folder of logs.
    """
    paths = run.paths
    try:
        with only_one(paths.log_dir / lock, paths):
            yield
    except (TrialError, Interrupted) as end:
        end.paths = paths
        raise
    except KeyboardInterrupt:  # where no session is at work: nothing has begun, or all is saved, and graphs are drawn
        if not paths.spec.exists():
            raise
        end = Interrupted(f"stopped and saved; go on with: {run.resume_command()}")
        end.paths = paths
        raise end from None
    except SpecError:
        if run.resume is None and not any(paths.info_dir.glob("*.csv")):
            discard_run(paths)
        raise


@dataclass
class _Running:
    """A session at work in another process."""

    index: int
    process: BaseProcess
    inbox: Connection
    begun: bool = False
    outcome: tuple[str, str] | None = None


class Trial:
    """Runs the sessions of a spec and analyses what they leave behind.

    Args:
        spec: what to run.
        mode: "train", or "dev": one session, with TensorBoard and extra checks.
        data_dir: where the folder of the run is made.
        resume: a run to go on with: its folder or a file in it.
        options: how to run.
    """

    def __init__(
        self,
        spec: Spec,
        mode: str = "train",
        data_dir: str | Path = "data",
        resume: str | Path | None = None,
        options: RunOptions | None = None,
    ) -> None:
        self.mode, self.data_dir, self.options = mode, Path(data_dir), options or RunOptions()
        self.resume = find_run(resume) if resume is not None else None
        changes: dict[str, Any] = {}
        if spec.meta.seed is None:
            changes["seed"] = secrets.randbelow(2**31)
        if mode == "dev":
            changes |= {"max_session": 1, "distributed": False}
            if spec.meta.distributed:
                logger.warning(
                    'meta.distributed: "{}" is read as false, as MODE dev has one session, MODE train {} workers',
                    spec.meta.distributed,
                    spec.meta.max_session,
                )
        with said_before():
            self.spec = spec.with_meta(**changes) if changes else spec

    def run(self) -> dict[str, float]:
        """Run all sessions, then analyse.

        Returns:
            the trial's scalar metrics.

        Raises:
            SpecError: the spec does not fit its environment or this machine.
            TrialError: a session failed.
            Interrupted: Ctrl-C or SIGTERM, after a clean save.
        """
        _refuse_import()
        self.paths = self.resume or new_run(self.data_dir, self.spec.name)
        with at_work(self, f".{self.paths.trial_prefix}.lock"):
            return self._run()

    def _run(self) -> dict[str, float]:
        from slm_lab.experiment.analysis import analyze_trial_sessions

        if self.resume is not None:
            with said_before():
                begun = load_spec(self.paths.spec, self.paths.spec_name)
            self._refuse_another_env(begun.to_dict()["env"])
        before = {file: file.read_text() for file in self._spec_files() if file.exists()}
        self._write_specs()
        count = self.spec.meta.max_session
        setup_logger(self.options.log_level, *self._logs())
        try:
            with stop_on_signals() as stop, Progress(self.spec.env.max_frame, count) as progress:
                finished = self._run_here(stop, progress) if count == 1 else self._run_processes(stop, progress)
            if not finished:
                raise Interrupted(f"stopped and saved; go on with: {self.resume_command()}")
            return analyze_trial_sessions(self.paths, self.spec)
        except SpecError:
            for file, text in before.items():  # a change that does not fit must not stay with the run
                atomic_write(file, text)
            raise
        finally:
            setup_logger(self.options.log_level)

    def resume_command(self) -> str:
        """Return the command that goes on with this run."""
        return command_line("slm-lab", self.paths.spec, self.spec.name, f"train@{self.paths.folder}")

    def _refuse_another_env(self, before: dict[str, Any]) -> None:
        """Raise if the environment of a run that goes on is to be another one; only its end may move."""
        now = self.spec.to_dict()["env"]
        for key in sorted(before.keys() | now.keys()):
            if key != "max_frame" and before.get(key) != now.get(key):
                raise SpecError(f"env.{key}: a run that goes on keeps its environment; leave it, or begin a new run")

    def _logs(self) -> list[Path]:
        return [self.paths.run_log, self.paths.trial_log]

    def _spec_files(self) -> list[Path]:
        sessions = [self.paths.for_session(index) for index in range(self.spec.meta.max_session)]
        return [self.paths.spec, self.paths.trial_spec, *(session.session_spec for session in sessions)]

    def _write_specs(self) -> None:
        for file in self._spec_files():
            write_json(file, {self.spec.name: self.spec.to_dict()})
        write_derived(self.paths, self.spec, self.mode, self._at_once(), self._threads())

    def _at_once(self) -> int:
        return self.spec.meta.at_once(available_cores())

    def _threads(self) -> int:
        """Return the threads of a session: its share of the cores."""
        return max(1, available_cores() // self._at_once())

    def _run_here(self, stop: StopRequest, progress: Progress) -> bool:
        """Run the only session in this process, where a debugger can reach it."""
        from slm_lab.agent import DivergenceError
        from slm_lab.experiment.session import Session

        paths = self.paths.for_session(0)
        setup_logger(self.options.log_level, *self._logs(), paths.session_log, console=progress.message)
        session = Session(
            self.spec,
            paths,
            mode=self.mode,
            options=self.options,
            threads=self._threads(),
            report=lambda *row: progress.update(0, *row),
            stop=stop,
        )
        try:
            return session.run()
        except SpecError:
            raise
        except DivergenceError as error:
            raise TrialError(f"session 0 failed:\n{error}") from error
        except Exception as error:
            logger.debug("session 0 failed", exc_info=True)
            raise TrialError(f"session 0 failed:\n{traceback.format_exc()}") from error
        finally:
            setup_logger(self.options.log_level, *self._logs())

    def _run_processes(self, stop: StopRequest, progress: Progress) -> bool:
        """Run the sessions in processes: no more at once than there are cores, unless they are workers of one agent."""
        context = process_context()
        import_module("plotly.graph_objects")  # for the graphs at the end, while the server imports what sessions need
        self.paths.shared_memory.unlink(missing_ok=True)  # of a run that was killed
        waiting = list(range(self.spec.meta.max_session))
        running: list[_Running] = []
        ended: list[_Running] = []
        failure: Exception | None = None
        try:
            while running or (waiting and failure is None and not stop.requested):
                if failure is not None or stop.requested:
                    for session in running:
                        session.process.terminate()  # SIGTERM: save and stop
                else:
                    while waiting and len(running) < self._at_once():
                        running.append(self._launch(context, waiting.pop(0)))
                wait([session.inbox for session in running], timeout=0.2)
                for session in list(running):
                    self._read(session, progress, stop)
                    if session.outcome is not None:
                        running.remove(session)
                        ended.append(session)
                        session.process.join()
                        failure = failure or _failure(session)
        finally:
            for session in running:  # something went wrong here
                session.process.terminate()
            self.paths.shared_memory.unlink(missing_ok=True)
        if failure is not None:
            raise failure
        return not waiting and all(session.outcome == FINISHED for session in ended)

    def _launch(self, context: ForkServerContext | SpawnContext, index: int) -> _Running:
        inbox, outbox = context.Pipe(duplex=False)
        paths = self.paths.for_session(index)
        arguments = (self.spec, paths, self.mode, self.options, self._threads(), outbox)
        process = context.Process(target=_session_process, args=arguments, name=f"session {index}")
        process.start()
        outbox.close()  # the child's end is the only one left, so that its death is seen as end of file
        return _Running(index, process, inbox)

    def _read(self, session: _Running, progress: Progress, stop: StopRequest) -> None:
        """Read what a session has to say; a process that died without a word has failed."""
        try:
            while session.inbox.poll():
                kind, *content = session.inbox.recv()
                if kind == "progress":
                    progress.update(session.index, *content)
                elif kind == "log":
                    progress.message(content[0])
                elif kind == "begun":
                    session.begun = True
                else:
                    session.outcome = (kind, content[0])
        except (EOFError, OSError):  # it died, perhaps in the middle of a message
            session.process.join()
            if session.outcome is None:
                session.outcome = _outcome_of_death(session, stop)


def _outcome_of_death(session: _Running, stop: StopRequest) -> tuple[str, str]:
    code = session.process.exitcode or 0
    if stop.requested and not session.begun:  # the signal met it before it could listen; there is nothing to save
        return ("stopped", "")
    if code == UNGUARDED:
        return ("bad spec", 'this program begins a trial on being imported; put it under `if __name__ == "__main__":`')
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return ("failed", f"its process ended with {how} and no word; out of memory, or killed?")


def _failure(session: _Running) -> Exception | None:
    kind, text = session.outcome or FINISHED
    if kind == "bad spec":
        return SpecError(text)
    return TrialError(f"session {session.index} failed:\n{text}") if kind == "failed" else None


def _refuse_import() -> None:
    """Leave a child that is still importing the main program: a trial begun there would begin children without end."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


def _session_process(
    spec: Spec, paths: RunPaths, mode: str, options: RunOptions, threads: int, outbox: Connection
) -> None:
    """Run one session in a process of its own and tell the parent everything through `outbox`."""
    from slm_lab.agent import DivergenceError
    from slm_lab.experiment.session import Session

    with stop_on_signals() as stop:

        def tell(*message: Any) -> None:
            try:
                outbox.send(message)
            except OSError:  # the parent is gone; without it nobody is waiting for the result
                stop.request()

        tell("begun")
        setup_logger(options.log_level, paths.session_log, console=lambda line: tell("log", line))
        session = Session(
            spec,
            paths,
            mode=mode,
            options=options,
            threads=threads,
            report=lambda *row: tell("progress", *row),
            stop=stop,
        )
        try:
            tell(*(FINISHED if session.run() else ("stopped", "")))
        except SpecError as error:
            tell("bad spec", str(error))
        except DivergenceError as error:
            tell("failed", str(error))
        except Exception:
            logger.debug("session {} failed", paths.session, exc_info=True)
            tell("failed", traceback.format_exc())


def write_derived(paths: RunPaths, spec: Spec, mode: str, at_once: int, threads: int) -> None:
    """Write down what a trial does not have from its spec.

    Args:
        paths: of the trial.
        spec: of the trial.
        mode: "train", "dev" or "search".
        at_once: sessions that may run at once.
        threads: of each.
    """
    derived = {
        "spec_hash": spec.hash,
        "mode": mode,
        "sessions_at_once": at_once,
        "threads": threads,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": {name: version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
    }
    write_json(paths.derived, derived)


def process_context() -> ForkServerContext | SpawnContext:
    """Return how to make processes: by forking a server that has imported torch once, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # the server would die of a signal to the whole group (Ctrl-C, `timeout`) that meets it while it is importing. The
    # tracker, which the server begins otherwise, lets signals in when it has begun
    resource_tracker.ensure_running()
    with signals_held_back():
        forkserver.ensure_running()
    return context


@cache  # the lab that runs is the one that was loaded, whatever is checked out meanwhile
def _git_commit() -> str | None:
    """Return the commit of the lab's checkout, with "+" if it has changes; None outside of one."""
    here = Path(__file__).parent
    try:
        # an installed lab may lie inside somebody else's checkout, whose commit says nothing
        mine = ["git", "ls-files", "--error-unmatch", __file__]
        if subprocess.run(mine, cwd=here, capture_output=True, timeout=5).returncode != 0:  # noqa: S603
            return None
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)  # noqa: S607
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, timeout=5)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if status.stdout else "") if commit.returncode == 0 else None
