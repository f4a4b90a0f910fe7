"""What every runner counts with: a line of progress after a training event, and the end when enough was seen."""

import json
import sys
import time

MARK = "@bench "
"""Begins a line of progress: the libraries print as well."""
LINE_SECONDS = 0.1


class Meter:
    """Is called after every training event; ends the process by SystemExit.

    Args:
        seconds: length of the window.
        warmup: seconds between the first update and the window.
        max_frame: where to end instead, if not None; no window then.
    """

    def __init__(self, seconds: float, warmup: float, max_frame: int | None = None) -> None:
        self.seconds, self.warmup, self.max_frame = seconds, warmup, max_frame
        self.events = 0
        self._begin = self._end = self._next = 0.0

    def __call__(self, frame: int) -> None:
        """Count a training event.

        Args:
            frame: environment steps so far, over all environments.
        """
        now = time.time()
        self.events += 1
        if self.events == 1:
            self._begin = now + self.warmup
        done = frame >= self.max_frame if self.max_frame is not None else self._is_over(now)
        if now >= self._next or done:
            self._next = now + LINE_SECONDS
            sys.stdout.write(f"{MARK}{json.dumps([now, frame, self.events])}\n")
            sys.stdout.flush()
        if done:
            raise SystemExit(0)

    def _is_over(self, now: float) -> bool:
        """The window begins with the first event after the warm-up."""
        if not self._end:
            if now >= self._begin:
                self._end, self._next = now + self.seconds, now  # both ends get their line
            return False
        return now >= self._end
