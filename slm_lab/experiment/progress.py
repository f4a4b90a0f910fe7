"""Live progress of a trial: a bar per session on a terminal, a plain line now and then elsewhere."""

import math
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SMOOTHING = 0.3
SPARK_WIDTH = 16
OTHER_WIDTH = 72  # columns of a line without its bar
SPARKS = "▁▂▃▄▅▆▇█"
PLAIN_SECONDS = 5.0
PLAIN_SHARE = 0.05
PLAIN_MAX_SECONDS = 60.0
"""Elsewhere than on a terminal a session gets a line every 5 % of its frames, but none within 5 seconds of the last and
never a silence of more than a minute."""


class Progress:
    """Shows how far the sessions are, on stderr. A context manager.

    Args:
        max_frame: frames of a session.
        sessions: how many there are.
        silent: show nothing.
    """

    def __init__(self, max_frame: int, sessions: int, silent: bool = False) -> None:
        self.max_frame, self.silent = max_frame, silent
        self.curves = [Curve(max_frame) for _ in range(sessions)]
        self._bars: Bars | None = None
        self._tasks: list[TaskID] = []
        self._fps = [math.nan] * sessions
        self._shown = [(time.monotonic(), 0)] * sessions  # (seconds, frame) of the last plain line

    def __enter__(self) -> Self:
        if not self.silent and sys.stderr.isatty():
            self._start_bars()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, session: int, frame: int, fps: float, total_reward: float) -> None:
        """Show what a session has come to.

        Args:
            session: its index.
            frame: frames done.
            fps: frames per second.
            total_reward: mean return of the last episodes; NaN before the first has ended.
        """
        curve = self.curves[session]
        curve.add(frame, total_reward)
        fps = self._smooth(session, fps)
        if self._bars is not None:
            self._bars.update(
                self._tasks[session],
                completed=frame,
                at=f"{frame:,}",
                fps=rate(fps),
                score=score(total_reward),
                spark=curve.spark(),
                left=time_left(self.max_frame - frame, fps),
            )
        elif not self.silent and self._plain_due(session, frame):
            share = 100 * frame / self.max_frame
            left = time_left(self.max_frame - frame, fps)
            self.message(
                f"session {session}: frame {frame:,}/{self.max_frame:,} ({share:.0f} %) | {rate(fps)} fps | "
                f"return {score(total_reward)} | {left} left"
            )

    def message(self, line: str) -> None:
        """Print a line, above the bars where there are bars. Its line end may be left out."""
        # while bars are live, rich has put its own stream in the place of sys.stderr
        sys.stderr.write(line if line.endswith("\n") else line + "\n")
        sys.stderr.flush()

    def _smooth(self, session: int, fps: float) -> float:
        """Return a running mean: learning stops the environments, so frames come in bursts; time left must not jump."""
        if math.isfinite(fps) and fps > 0:
            before = self._fps[session]
            self._fps[session] = fps if math.isnan(before) else before + SMOOTHING * (fps - before)
        return self._fps[session]

    def _plain_due(self, session: int, frame: int) -> bool:
        now = time.monotonic()
        since, before = now - self._shown[session][0], frame - self._shown[session][1]
        moved = before >= PLAIN_SHARE * self.max_frame
        ended = frame >= self.max_frame > self._shown[session][1]
        if ended or (moved and since >= PLAIN_SECONDS) or since >= PLAIN_MAX_SECONDS:
            self._shown[session] = (now, frame)
            return True
        return False

    def _start_bars(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        # lines that fill the terminal would be broken up by the ^C that it shows on Ctrl-C
        bar_width = min(max(console.width - OTHER_WIDTH, 8), 40)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width),
            TextColumn("{task.fields[at]}", justify="right"),
            TextColumn("{task.fields[fps]} fps", justify="right"),
            TextColumn("return {task.fields[score]}", justify="right"),
            TextColumn("{task.fields[spark]}", style="cyan"),
            TextColumn("{task.fields[left]} left", justify="right"),
            console=console,
            refresh_per_second=4,
        )
        for index in range(len(self.curves)):
            blank = " " * SPARK_WIDTH
            task = self._bars.add_task(
                f"session {index}", total=self.max_frame, at="0", fps="–", score="–", spark=blank, left="–"
            )
            self._tasks.append(task)
        self._bars.start()


class Curve:
    """The returns of a session in sixteen steps, each holding the newest of its sixteenth of the frames."""

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self.values: dict[int, float] = {}

    def add(self, frame: int, total_reward: float) -> None:
        """Take up a return; NaN is none."""
        if math.isfinite(total_reward):
            self.values[min(frame * SPARK_WIDTH // self.max_frame, SPARK_WIDTH - 1)] = total_reward

    def spark(self) -> str:
        """Draw the curve, as wide as a whole run: what is not there yet is blank."""
        if not self.values:
            return " " * SPARK_WIDTH
        low, high = min(self.values.values()), max(self.values.values())
        scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
        return "".join(
            SPARKS[round((self.values[step] - low) * scale)] if step in self.values else " "
            for step in range(SPARK_WIDTH)
        )


def rate(fps: float) -> str:
    """Write frames per second; – where they are not known yet."""
    return f"{fps:,.0f}" if math.isfinite(fps) else "–"


def score(total_reward: float) -> str:
    """Write a return; – where there is none yet."""
    if not math.isfinite(total_reward):
        return "–"
    return f"{total_reward:,.0f}" if abs(total_reward) >= 1000 else f"{total_reward:.2f}"


def time_left(frames: int, fps: float) -> str:
    """Write the time that `frames` take."""
    return duration(max(frames, 0) / fps) if 0 < fps < math.inf else "–"


def duration(seconds: float) -> str:
    """Write a time: h:mm:ss, or m:ss below an hour; – where it is not known."""
    if not math.isfinite(seconds):
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
