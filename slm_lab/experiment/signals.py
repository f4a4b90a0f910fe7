"""Ctrl-C and SIGTERM as a request: finish the step, save, stop."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """Set once somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Ask to stop."""
        self.requested = True


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request while the context lasts.

    Outside the main thread (a notebook's worker, say) Python allows no handlers, and the request is only set by hand.
    """
    stop = StopRequest()

    def handle(_signum: int, _frame: FrameType | None) -> None:
        stop.request()

    with handlers_put_back(handle):
        yield stop


@contextmanager
def handlers_put_back(handler: Any = None) -> Generator[None]:
    """Handle SIGINT and SIGTERM by `handler`, if one is given, and put back at the end what handled them before.

    Outside the main thread Python allows no handlers, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        if handler is not None:
            for signum in before:
                signal.signal(signum, handler)
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)
