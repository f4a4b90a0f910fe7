"""Schedules: pure functions of the frame, so there is nothing to save and nothing to restore."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""frame -> value."""

RATE_DECAY_STEPS = 20
RATE_DECAY = 0.9
PERIODIC_CYCLES = 10


def make_schedule(
    name: str, start_val: float, end_val: float | None = None, start_step: int = 0, end_step: int | None = None
) -> Schedule:
    """Build the schedule that a variable spec (`explore_var_spec`, `entropy_coef_spec`, `clip_eps_spec`) describes.

    The value is `start_val` until `start_step` and `end_val` from `end_step` on; in between

    - `no_decay`: stays at `start_val`, always;
    - `linear_decay`: a straight line;
    - `rate_decay`: 0.9 to the power of the twentieths passed, towards `end_val`;
    - `periodic_decay`: a cosine wave of ten cycles under the falling line.

    Args:
        name: one of the four.
        start_val: value at the start.
        end_val: value at the end; not used by `no_decay`. 0 is a value like any other.
        start_step: frame at which the change begins.
        end_step: frame at which it ends.
    """
    if name == "no_decay":
        return lambda _frame: start_val
    if end_val is None or end_step is None:
        raise ValueError(f"{name} needs end_val and end_step")
    curve = {"linear_decay": _linear, "rate_decay": _rate, "periodic_decay": _periodic}[name]
    span = max(end_step - start_step, 1)

    def schedule(frame: int) -> float:
        progress = min(max((frame - start_step) / span, 0.0), 1.0)
        return end_val + (start_val - end_val) * curve(progress)

    return schedule


def _linear(progress: float) -> float:
    return 1.0 - progress


def _rate(progress: float) -> float:
    # rescaled, so that the curve truly ends at end_val
    floor = RATE_DECAY**RATE_DECAY_STEPS
    return (RATE_DECAY ** (progress * RATE_DECAY_STEPS) - floor) / (1.0 - floor)


def _periodic(progress: float) -> float:
    wave = 0.5 * (1.0 + math.cos(2 * math.pi * PERIODIC_CYCLES * progress))
    return (1.0 - progress) * wave
