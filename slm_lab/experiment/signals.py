"""Ctrl-C and SIGTERM as a request: finish the step, save, stop."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


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
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(_signum: int, _frame: FrameType | None) -> None:
        stop.request()

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
