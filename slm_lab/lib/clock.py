"""The clock of a session and the cadences that it drives."""

import time
from dataclasses import asdict, dataclass, field


@dataclass
class Clock:
    """Counts what a session has done.

    Attributes:
        t: vector steps.
        frame: environment steps over all environments (`num_envs` per vector step; Atari's frame skip is not counted).
        opt_step: optimiser steps.
        wall_t: seconds of training before this process began, so that a resumed run goes on counting.
    """

    t: int = 0
    frame: int = 0
    opt_step: int = 0
    wall_t: float = 0.0
    _started: float = field(default_factory=time.perf_counter, repr=False)

    def tick(self, num_envs: int, frame: int | None = None) -> int:
        """Count one vector step; return the frames since the last one.

        Args:
            num_envs: environments that took it.
            frame: frames so far, where others count as well; None where nobody does.
        """
        before = self.frame
        self.t += 1
        self.frame = before + num_envs if frame is None else frame
        return self.frame - before

    @property
    def elapsed(self) -> float:
        """Seconds of training, all processes of this run together."""
        return self.wall_t + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed session needs."""
        state = asdict(self)
        del state["_started"]
        return state | {"wall_t": self.elapsed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state`."""
        self.t, self.frame, self.opt_step = int(state["t"]), int(state["frame"]), int(state["opt_step"])
        self.wall_t = float(state["wall_t"])
        self._started = time.perf_counter()


def crossed(frame: int, step: int, every: int) -> bool:
    """Tell whether the last `step` frames up to `frame` passed a multiple of `every`."""
    return frame // every > (frame - step) // every


def previous_crossing(frame: int, step: int, every: int) -> int:
    """Return the last frame before `frame`, in steps of `step`, that passed a multiple of `every`; 0 if none did."""
    multiple = (frame - step) // every * every
    return -(-multiple // step) * step  # the first step at or past it
