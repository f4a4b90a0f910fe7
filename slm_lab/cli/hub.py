"""Runs to and from a Hugging Face repository: what the commands print."""

from collections.abc import Sequence
from pathlib import Path

from slm_lab.spec.errors import SpecError

echo = print  # what a command is asked for goes to stdout


def push_runs(runs: Sequence[Path], repo: str | None, log_level: str) -> None:
    """Push runs, and name them."""
    from slm_lab.experiment.share import push
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    for name in push(runs, _named(repo)):
        echo(name)


def pull_runs(pattern: str, repo: str | None, data_dir: Path, max_size: float, log_level: str) -> None:
    """Pull runs, and name their folders."""
    from slm_lab.experiment.share import pull
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    for name in pull(pattern, _named(repo), data_dir, int(max_size * 1e9)):
        echo(data_dir / name)


def list_runs(word: str, repo: str | None, data_dir: Path) -> None:
    """Print the runs of a repository: their size, and whether they are here."""
    from slm_lab.cli.check import human
    from slm_lab.experiment.share import list_remote

    repo = _named(repo)
    runs = list_remote(repo, word)
    if not runs:
        raise SpecError(f"{repo}: no run there whose name has {word!r} in it" if word else f"{repo}: no run there")
    width = max(len(run.name) for run in runs)
    for run in runs:
        echo(f"{run.name:<{width}}  {human(run.size):>9}" + "  here" * (data_dir / run.name).exists())


def _named(repo: str | None) -> str:
    if not repo:
        raise SpecError("which repository? name it: --repo USER/NAME, or HF_REPO=USER/NAME in the environment")
    return repo
