"""One process at a time on one run."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from slm_lab.experiment.paths import RunPaths
from slm_lab.spec.errors import SpecError


@contextmanager
def only_one(file: Path, paths: RunPaths, timeout: float = 0.0) -> Generator[None]:
    """Hold the lock `file` of a run; the system releases it however the process ends.

    Args:
        file: of the lock.
        paths: names the run.
        timeout: seconds to wait for another process to let go.

    Raises:
        SpecError: another process holds it.
    """
    lock = FileLock(file, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise SpecError(f"{paths.folder}: another process is at work on this run; wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()
