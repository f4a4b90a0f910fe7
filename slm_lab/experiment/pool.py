"""Who runs the sessions of a search: this process, one after the other, or Ray, as many as its machines hold.

Both run the same function, `run_stretch`. A session that is run again goes on from its own checkpoint, so a pool need
not know what became of a process that died: Ray runs the stretch again, on another machine if need be.
"""

import socket
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.paths import RunPaths
from slm_lab.experiment.signals import StopRequest, handlers_put_back
from slm_lab.experiment.trial import PRELOADED
from slm_lab.lib.device import available_cores
from slm_lab.lib.logger import setup_logger
from slm_lab.lib.named import look_here
from slm_lab.spec import Spec, SpecError

if TYPE_CHECKING:
    import ray

    from slm_lab.experiment.measure import Size

RETRIES = 3
WAIT_SECONDS = 0.2
CONNECT_SECONDS = 5.0
MANY = 10**9


@dataclass(frozen=True)
class Stretch:
    """A session, to be run up to a frame.

    Attributes:
        spec: of the trial.
        paths: of the session.
        until: the frame.
        threads: CPU threads.
        options: how to run.
        stop_files: it saves and stops when one of them is there.
    """

    spec: Spec
    paths: RunPaths
    until: int
    threads: int
    options: RunOptions
    stop_files: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a stretch.

    Attributes:
        status: "done", "stopped" before its end with everything saved, "failed", or "blind" where the machine does not
            see the run folder.
        reason: why.
    """

    status: str
    reason: str = ""


class Pool(Protocol):
    """Runs stretches."""

    threads: int
    """CPU threads of a session."""

    @property
    def slots(self) -> int:
        """How many run at once."""
        ...

    def describe(self) -> str:
        """Say how many run at once, and why."""
        ...

    def measure(self, spec: Spec) -> "Size":
        """Measure a spec that searches, and try some of what it comes to.

        Raises:
            SpecError: one of these does not fit its environment, or names what torch does not have.
        """
        ...

    def submit(self, stretch: Stretch) -> None:
        """Take up a stretch; there must be a slot for it."""
        ...

    def wait(self) -> list[tuple[Stretch, Outcome]]:
        """Return those that have ended, after a moment at most where they run elsewhere."""
        ...

    def close(self) -> None:
        """Let go of what was taken."""
        ...


class SerialPool:
    """Runs one session after the other in this process.

    Args:
        stop: a request to save and stop.
        logs: log files to go on with after each session.
    """

    slots, threads = 1, 1

    def __init__(self, stop: StopRequest, logs: Sequence[Path] = ()) -> None:
        self.stop, self.logs = stop, logs
        self._next: Stretch | None = None

    def describe(self) -> str:
        """Say how many run at once."""
        return "1 session at once, in this process"

    def measure(self, spec: Spec) -> "Size":
        """Measure a spec here."""
        from slm_lab.experiment.measure import measure_search

        return measure_search(spec)

    def submit(self, stretch: Stretch) -> None:
        """Remember it: it runs in `wait`."""
        self._next = stretch

    def wait(self) -> list[tuple[Stretch, Outcome]]:
        """Run it to its end."""
        stretch, self._next = self._next, None
        if stretch is None:
            return []
        try:
            return [(stretch, run_stretch(stretch, self.stop))]
        finally:
            setup_logger(stretch.options.log_level, *self.logs)

    def close(self) -> None:
        """Nothing to let go of."""


class RayPool:
    """Runs sessions as tasks of Ray, here or on a cluster.

    Args:
        cpu: cores of a session.
        gpu: GPUs of a session; None: as much as lets the GPUs hold as many sessions as the cores do.
        address: of a cluster; None: begin one on this machine.
        modules: names of modules that sessions import, which travel to the machines of the cluster.

    Raises:
        SpecError: Ray does not answer, or could never hold a session.
    """

    def __init__(
        self, cpu: float = 1, gpu: float | None = 0, address: str | None = None, modules: Iterable[str] = ()
    ) -> None:
        import ray
        import ray.exceptions

        self._ray: Any = ray
        self.address, self.threads = address, max(1, int(cpu))
        self._begin(modules)
        self.cpu = cpu
        self.gpu = self._share_of_gpus() if gpu is None else gpu
        self._running: dict[ray.ObjectRef, Stretch] = {}
        try:
            self._refuse_impossible()
        except SpecError:
            self.close()
            raise
        self._task = self._ray.remote(
            num_cpus=self.cpu, num_gpus=self.gpu, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        self._run = self._task(run_stretch)

    def _begin(self, modules: Iterable[str]) -> None:
        keys: dict[str, Any] = {"address": "local", "num_cpus": available_cores(), "include_dashboard": False}
        if self.address is not None:
            _refuse_silence(self.address)
            keys = {"address": self.address, "runtime_env": {"py_modules": _files_of(modules)}}
        tries = 1 + RETRIES if self.address is None else 1
        # Ray puts a handler of SIGTERM in the place of ours, which ends the program at once
        with handlers_put_back():
            while not self._ray.is_initialized():
                tries -= 1
                try:
                    self._ray.init(log_to_driver=False, logging_level="ERROR", **keys)
                except Exception as error:  # there is no type of its own for a server too slow on a busy machine
                    self._ray.shutdown()
                    if not tries:
                        what = " ".join(str(error).split())
                        if self.address is None:
                            raise SpecError(f"Ray does not begin on this machine, try --serial: {what}") from error
                        raise SpecError(f"--ray-address {self.address}: Ray does not answer: {what}") from error

    def _machines(self) -> list[dict[str, float]]:
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [{"cpu": machine.get("CPU", 0), "gpu": machine.get("GPU", 0)} for machine in machines]

    def _share_of_gpus(self) -> float:
        machines = self._machines()
        cores, gpus = (sum(machine[kind] for machine in machines) for kind in ("cpu", "gpu"))
        # Ray counts in ten-thousandths
        return min(1.0, int(gpus * self.cpu / max(cores, 1) * 1e4) / 1e4)

    def _refuse_impossible(self) -> None:
        machines = self._machines()
        if not any(_holds(machine, self.cpu, self.gpu) for machine in machines):
            most = " or ".join(f"{machine['cpu']:g} cores and {machine['gpu']:g} GPUs" for machine in machines)
            raise SpecError(
                f"meta.search_resources: a session is to have {self.cpu:g} cores and {self.gpu:g} GPUs, "
                f"but there is no machine with more than {most or 'nothing'}; ask for less"
            )

    @property
    def slots(self) -> int:
        """How many run at once, on the machines that are there now."""
        return sum(_holds(machine, self.cpu, self.gpu) for machine in self._machines())

    def describe(self) -> str:
        """Say how many run at once, and why."""
        machines = self._machines()
        cores, gpus = (sum(machine[kind] for machine in machines) for kind in ("cpu", "gpu"))
        return (
            f"{self.slots} sessions at once ({len(machines)} machine{'s' * (len(machines) != 1)}, {cores:g} cores, "
            f"{gpus:g} GPUs; a session takes cpu {self.cpu:g}, gpu {self.gpu:g})"
        )

    def measure(self, spec: Spec) -> "Size":
        """Measure a spec in a worker; the others import meanwhile what sessions need.

        So this process need not import torch, and each worker does it once, for all the sessions that it will run.
        """
        measured = self._task(_measure).remote(spec)
        for _ in range(self.slots - 1):
            self._task(_warm_up).remote()
        found = self._ray.get(measured)
        if isinstance(found, SpecError):
            raise found
        return found

    def submit(self, stretch: Stretch) -> None:
        """Hand it to Ray."""
        self._running[self._run.remote(stretch)] = stretch

    def wait(self) -> list[tuple[Stretch, Outcome]]:
        """Return those that have ended."""
        ended, _ = self._ray.wait(list(self._running), timeout=WAIT_SECONDS)
        return [(self._running.pop(task), self._outcome(task)) for task in ended]

    def _outcome(self, task: "ray.ObjectRef") -> Outcome:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:  # it died again and again
            first = str(error).strip().partition("\n")[0]
            return Outcome("failed", f"its process died {RETRIES + 1} times; out of memory? ({first})")

    def close(self) -> None:
        """End the tasks and, where it was begun here, Ray."""
        self._ray.shutdown()


def run_stretch(stretch: Stretch, stop: StopRequest | None = None) -> Outcome:
    """Run a session up to a frame, in whatever process this is; its errors come back as an outcome.

    Args:
        stretch: what to run.
        stop: a request to save and stop.
    """
    from slm_lab.agent import DivergenceError
    from slm_lab.experiment.session import Session

    asked = stop or StopRequest()

    def look(*_progress: float) -> None:
        if any(file.exists() for file in stretch.stop_files):
            asked.request()

    paths = stretch.paths
    if not paths.session_spec.exists():
        return Outcome("blind", f"{paths.folder}: not every machine sees it; put --data on a folder that they share")
    setup_logger(stretch.options.log_level, paths.session_log, console=lambda _line: None)
    session = Session(
        stretch.spec,
        paths,
        options=stretch.options,
        threads=stretch.threads,
        report=look,
        stop=asked,
        until=stretch.until,
    )
    try:
        session.run()
    except (SpecError, DivergenceError) as error:
        return Outcome("failed", str(error))
    except Exception as error:
        logger.error("session {} failed\n{}", paths.session, traceback.format_exc())
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("done" if session.clock.frame >= session.until else "stopped")


def _warm_up() -> None:
    for module in PRELOADED:
        import_module(module)


def _measure(spec: Spec) -> "Size | SpecError":
    _warm_up()
    from slm_lab.experiment.measure import measure_search

    try:
        return measure_search(spec)
    except SpecError as error:  # raised here, it would have Ray's traceback in its text
        return error


def _refuse_silence(address: str) -> None:
    """Raise if nobody listens at an address; Ray itself would try for minutes. "auto" and the like name no port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:  # the latter: no such port
        why = getattr(error, "strerror", None) or error
        raise SpecError(
            f"--ray-address {address}: nothing answers there ({why}); is it the one that `ray start --head` printed?"
        ) from error


def _holds(machine: dict[str, float], cpu: float, gpu: float) -> int:
    """Return how many sessions a machine holds."""
    counts = [int(have / need + 1e-6) for have, need in ((machine["cpu"], cpu), (machine["gpu"], gpu)) if need]
    return min(counts, default=MANY)


def _files_of(modules: Iterable[str]) -> list[str]:
    """Return files and folders of modules that lie here; what is installed is installed on every machine."""
    look_here()
    found = []
    for module in sorted({module.partition(".")[0] for module in modules}):
        known = find_spec(module)
        file = Path(known.origin) if known and known.origin else None
        if file is not None and file.suffix == ".py" and "site-packages" not in file.parts:
            found.append(str(file.parent if file.name == "__init__.py" else file))
    return found
