"""From lines of progress to numbers: pure functions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.meter import MARK


@dataclass(frozen=True)
class Point:
    """Where a runner was after a training event: seconds since the epoch, frames, training events."""

    time: float
    frame: int
    events: int


def points_of(output: str) -> list[Point]:
    """Read the lines of progress from what a runner printed."""
    lines = (line for line in output.splitlines() if line.startswith(MARK))
    return [Point(*json.loads(line.removeprefix(MARK))) for line in lines]


def window(points: Sequence[Point], warmup: float) -> tuple[Point, Point]:
    """Return the first point at least `warmup` seconds after the first update, and the last point.

    Both come right after a training event, so that a window holds whole cycles of collecting and learning.

    Raises:
        ValueError: they are not two.
    """
    if not points:
        raise ValueError("no update was seen")
    first = next((point for point in points if point.time >= points[0].time + warmup), points[-1])
    if first.time >= points[-1].time:
        raise ValueError("no update came after the warm-up; give it more --seconds")
    return first, points[-1]


def rates(points: Sequence[Point], warmup: float) -> tuple[float, float]:
    """Return frames per second and training events per second over the window."""
    first, last = window(points, warmup)
    seconds = last.time - first.time
    return (last.frame - first.frame) / seconds, (last.events - first.events) / seconds


def ratios(lab: Sequence[float | None], peers: Iterable[Sequence[float | None]]) -> list[float]:
    """Return lab / fastest peer of every round in which the lab and a peer finished; each argument is by round."""
    found = []
    for mine, *theirs in zip(lab, *peers, strict=True):
        known = [fps for fps in theirs if fps is not None]
        if mine is not None and known:
            found.append(mine / max(known))
    return found


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are there; None if there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def rotated(items: Sequence[str], by: int) -> list[str]:
    """Return `items` beginning with another one each time: no side always comes first, or after the same one.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    start = by % len(items)
    return [*items[start:], *items[:start]]


def best_threads(tried: Mapping[int, float | None]) -> int:
    """Return the thread count that was fastest; the smallest where none finished."""
    return max(sorted(tried), key=lambda threads: tried[threads] or 0.0)
