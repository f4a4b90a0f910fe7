"""A run on a rented machine: the command for dstack, and what it finds in its environment."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from slm_lab.spec.errors import SpecError

FOLDER = Path(".dstack")
NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")  # dstack's own rule
MODES = ("dev", "train", "search")


@dataclass(frozen=True)
class RemoteRun:
    """What dstack is told.

    Attributes:
        command: its words.
        environment: variables that it takes over from here.
    """

    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def line(self) -> str:
        """The whole as it is to be typed."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])


def remote_run(
    spec_file: str, spec_name: str, mode: str, sets: Sequence[str] = (), gpu: bool = False, name: str | None = None
) -> RemoteRun:
    """Say how a spec is run on a rented machine.

    Every run gets a folder of its own on the data volume. That is how `.dstack/run.sh` knows a run that was
    interrupted from one that begins.

    Raises:
        SpecError: a bad spec, mode or name; or there is no `.dstack` here.
    """
    if mode not in MODES:
        raise SpecError(f"MODE {mode!r}: give {', '.join(MODES)}; an interrupted run goes on by itself")
    file = FOLDER / f"run-{'gpu' if gpu else 'cpu'}-{'search' if mode == 'search' else 'train'}.yml"
    if not file.is_file():
        raise SpecError(f"{file}: not here; run this in a clone of the lab's repository")
    if Path(spec_file).is_absolute():
        raise SpecError(f"{spec_file}: give a path within the repository, as it is what the rented machine gets")
    if spaced := [text for text in sets if re.search(r"\s", text)]:
        raise SpecError(f"-s {spaced[0]!r}: a value with blanks cannot be passed on; write it into the spec")
    from slm_lab.spec import load_spec

    spec = load_spec(spec_file, spec_name, sets)
    name = name or re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")[:41].rstrip("-")
    if not NAME.fullmatch(name):
        raise SpecError(f"--name {name}: dstack takes 2 to 41 of a-z, 0-9 and -, the first of them a letter")
    folder = f"/data/{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    variables = [f"DATA_DIR={folder}"] + ([f"SET={' '.join(sets)}"] if sets else [])
    words = ["dstack", "apply", "-f", str(file), "-y", "--detach", "--name", name]
    words += [word for variable in variables for word in ("-e", variable)]
    return RemoteRun(tuple(words), {"SPEC_FILE": spec_file, "SPEC_NAME": spec_name, "LAB_MODE": mode})


def submit(run: RemoteRun) -> int:
    """Hand a run to dstack; return its exit code.

    Raises:
        SpecError: dstack is not installed.
    """
    if shutil.which("dstack") is None:
        raise SpecError("dstack is not installed; `uv tool install dstack`, then `dstack project add`")
    done = subprocess.run(run.command, env=os.environ | run.environment, check=False)  # noqa: S603 - no shell is asked
    return done.returncode
