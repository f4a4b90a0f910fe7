"""Who does the works. A side is a module with `run(work, meter, threads, precision)`, in a process of its own."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

LAB = "lab"


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        title: what the tables call it.
        package: of the package index; None where it is part of this repository.
        cannot: why it does not do a work, by the work's name.
    """

    title: str
    package: str | None = None
    cannot: tuple[tuple[str, str], ...] = ()


SIDES = {
    LAB: Side("SLM Lab"),
    "sb3": Side("stable-baselines3", "stable-baselines3"),
    "tianshou": Side("tianshou", "tianshou"),
    "torchrl": Side("torchrl", "torchrl", (("ppo_pong", "no script for images has been written here"),)),
    "eager": Side("single file, eager"),
    "compiled": Side("single file, compiled"),
    "functional": Side("single file, one graph"),
}
PEERS = tuple(name for name in SIDES if name != LAB)


def installed(package: str) -> bool:
    """Tell whether a package of the index is there, without importing it."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
