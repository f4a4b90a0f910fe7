"""Ctrl-C and SIGTERM as a request: finish the step, save, stop."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set once somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Ask to stop."""
        self.requested = True


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request while the context lasts, also where they were held back until now.

    Outside the main thread (a notebook's worker, say) Python allows no handlers, and the request is only set by hand.
    """
    stop = StopRequest()

    def handle(_signum: int, _frame: FrameType | None) -> None:
        stop.request()

    with handlers_put_back():
        if threading.current_thread() is threading.main_thread():
            _handle_by(handle)
        yield stop


@contextmanager
def interrupt_on_signals() -> Generator[None]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt while the context lasts; what comes after that is ignored.

    For the main thread of a process of its own, which has only to say how it ended then.
    """

    def handle(_signum: int, _frame: FrameType | None) -> None:
        ignore()
        raise KeyboardInterrupt

    def ignore() -> None:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    _handle_by(handle)
    try:
        yield
    finally:
        ignore()


@contextmanager
def signals_held_back() -> Generator[None]:
    """Let SIGINT and SIGTERM wait until the end; in processes begun meanwhile, until they enter `stop_on_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handlers_put_back() -> Generator[None]:
    """Put back at the end what handled SIGINT and SIGTERM; only in the main thread, where Python allows handlers."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _handle_by(handle: Callable[[int, FrameType | None], None]) -> None:
    """Let `handle` take SIGINT and SIGTERM, also those that were held back until now."""
    for signum in SIGNALS:
        signal.signal(signum, handle)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
