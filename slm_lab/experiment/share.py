"""Runs to and from a Hugging Face dataset repository: `data/{run}/…` there is `{data}/{run}/…` here.

What travels is text and tensors: JSON, CSV (the rows) and safetensors. Graphs stay behind, as a page of somebody else's
could run its scripts in your browser; `slm-retro` makes them again from the rows. What comes in is distrusted: its
paths and sizes are checked before anything is fetched, its content before the run appears among the others.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from loguru import logger

from slm_lab.experiment.paths import STAMP_PATTERN, find_run
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SUFFIXES = (".json", ".csv", ".safetensors")
FOLDER = "data"  # in the repository
MAX_FILES = 20_000  # of a run
MAX_DEPTH = 4  # data/{run}/model/{checkpoint}/file: three folders below data
SPARE = 2**30  # bytes that stay free on the disk
MAX_HEADER = 100_000_000  # bytes of the header of a safetensors file, as that format has it
RUN_NAME = re.compile(rf"\w[\w.@+-]*_{STAMP_PATTERN}")
FILE_NAME = re.compile(r"[\w@+=,()\[\]-][\w.@+=,()\[\] -]*")  # no hidden files, no separators of any system


@dataclass(frozen=True)
class RemoteFile:
    """A file of a run in the repository.

    Attributes:
        path: from the root of the repository.
        size: bytes, as the repository says.
    """

    path: str
    size: int


@dataclass(frozen=True)
class RemoteRun:
    """A run in the repository.

    Attributes:
        name: of its folder.
        files: all that the repository has in it.
    """

    name: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of what would be fetched."""
        return sum(file.size for file in self.files if file.path.endswith(SUFFIXES))


# --- out


def push(targets: Sequence[str | Path], repo: str) -> list[str]:
    """Copy runs into the repository, which is made (private) if it is not there; return their names.

    Raises:
        SpecError: no run, nothing that may travel in it, or what the hub says against it.
    """
    api = _api()
    from huggingface_hub import CommitOperationAdd

    runs = [find_run(target).folder.resolve() for target in targets]
    for folder in runs:
        if not RUN_NAME.fullmatch(folder.name):
            raise SpecError(f"{folder}: name it {{spec}}_{{YYYY_MM_DD_HHMMSS}}, as runs are, so that it can be pulled")
    travelling = {folder: _travelling(folder) for folder in runs}
    with _hub_errors(repo):
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        for folder, files in travelling.items():
            added = [CommitOperationAdd(_path(folder, file), file) for file in files]
            api.create_commit(repo, added, commit_message=f"run {folder.name}", repo_type="dataset")
            logger.info("{}: {} files pushed to {}", folder.name, len(files), repo)
    return [folder.name for folder in runs]


def _travelling(folder: Path) -> list[Path]:
    """Return the files of a run that may travel; what may not be pulled is not pushed."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix in SUFFIXES and not file.is_symlink()]
    good = [file for file in files if not _problem(_path(folder, file))]
    if not good:
        raise SpecError(f"{folder}: no JSON, CSV or safetensors in it; there is nothing to push")
    return sorted(good)


def _path(folder: Path, file: Path) -> str:
    return f"{FOLDER}/{folder.name}/{file.relative_to(folder).as_posix()}"


# --- in


def list_remote(repo: str, word: str = "") -> list[RemoteRun]:
    """Return the runs of the repository whose name contains `word`, by name.

    Raises:
        SpecError: what the hub says against it.
    """
    return _list(_api(), repo, word)[1]


def pull(pattern: str, repo: str, data_dir: Path, max_bytes: int) -> list[str]:
    """Copy the runs whose name contains `pattern` here, but for those that are here already; return their names.

    A run appears when all of it is here and found good, or not at all.

    Raises:
        SpecError: no such run; a path, a size or a content that must not be; or what the hub says against it.
    """
    api = _api()
    revision, runs = _list(api, repo, pattern)
    if not runs:
        raise SpecError(f"{repo}: no run there whose name has {pattern!r} in it; slm-lab list --remote shows all")
    new = [run for run in runs if not (data_dir / run.name).exists()]
    for run in runs:
        if run not in new:
            logger.info("{}: is here already", data_dir / run.name)
    for run in new:
        _check_listing(run, max_bytes)
    data_dir.mkdir(parents=True, exist_ok=True)
    needed, free = sum(run.size for run in new), shutil.disk_usage(data_dir).free - SPARE
    if needed > free:
        raise SpecError(f"{repo}: {needed / 1e9:.1f} GB to fetch, but {data_dir} has {max(free, 0) / 1e9:.1f} GB free")
    for run in new:
        _fetch(api, repo, revision, run, data_dir)
    return [run.name for run in new]


def _list(api: "HfApi", repo: str, word: str) -> tuple[str, list[RemoteRun]]:
    """Return the newest revision, and its runs."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import EntryNotFoundError

    with _hub_errors(repo):
        revision = api.repo_info(repo, repo_type="dataset").sha or "main"
        try:
            tree = list(api.list_repo_tree(repo, FOLDER, recursive=True, revision=revision, repo_type="dataset"))
        except EntryNotFoundError:
            tree = []  # a repository without runs
    files: dict[str, list[RemoteFile]] = {}
    for entry in tree:
        parts = entry.path.split("/")
        if isinstance(entry, RepoFile) and len(parts) > 2 and parts[0] == FOLDER and word in parts[1]:
            files.setdefault(parts[1], []).append(RemoteFile(entry.path, entry.size))
    return revision, [RemoteRun(name, tuple(listed)) for name, listed in sorted(files.items())]


def _check_listing(run: RemoteRun, max_bytes: int) -> None:
    """Refuse a run by what its listing says, before anything of it is fetched."""
    if len(run.files) > MAX_FILES:
        raise SpecError(f"{run.name}: {len(run.files)} files; a run with more than {MAX_FILES} is not fetched")
    for file in run.files:
        if problem := _problem(file.path):
            raise SpecError(f"{run.name}: {file.path!r}: {problem}; the run is not fetched")
        if file.size < 0:
            raise SpecError(f"{run.name}: {file.path!r}: a size of {file.size}; the run is not fetched")
    if run.size > max_bytes:
        raise SpecError(
            f"{run.name}: {run.size / 1e9:.3g} GB, but --max-size is {max_bytes / 1e9:g} GB; give a larger one"
        )


def _problem(path: str) -> str | None:
    """Say what is wrong with a path in the repository; None for `data/{run}/…` that stays within the run."""
    parts = PurePosixPath(path).parts
    if "/".join(parts) != path or len(parts) < 3 or parts[0] != FOLDER or not RUN_NAME.fullmatch(parts[1]):
        return "not a path within a run"
    if len(parts) > MAX_DEPTH + 1:
        return "too deep for a run"
    if any(not FILE_NAME.fullmatch(part) for part in parts[2:]):
        return "not a file name of a run"
    return None


def _fetch(api: "HfApi", repo: str, revision: str, run: RemoteRun, data_dir: Path) -> None:
    wanted = [file for file in run.files if file.path.endswith(SUFFIXES)]
    if left := len(run.files) - len(wanted):
        logger.info("{}: {} files that are no JSON, CSV or safetensors are left there", run.name, left)
    if not wanted:
        raise SpecError(f"{run.name}: no JSON, CSV or safetensors in it; there is nothing to fetch")
    aside = Path(tempfile.mkdtemp(prefix=f".pull-{run.name}-", dir=data_dir))
    try:
        for file in wanted:
            with _hub_errors(repo):
                api.hf_hub_download(repo, file.path, repo_type="dataset", revision=revision, local_dir=aside)
            _check_content(aside / file.path, file)
        (aside / FOLDER / run.name).rename(data_dir / run.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logger.info("{}: {} files pulled from {}", data_dir / run.name, len(wanted), repo)


def _check_content(here: Path, file: RemoteFile) -> None:
    """Refuse a file that is not what its name and the listing say."""
    size = here.stat().st_size
    if size != file.size:
        raise SpecError(f"{file.path}: {size} bytes came, {file.size} were announced; the run is not taken")
    try:
        if here.suffix == ".safetensors":
            _check_safetensors(here, size)
        elif here.suffix == ".json":
            json.loads(here.read_text(encoding="utf-8"))
        else:
            _check_csv(here)
    except (ValueError, RecursionError) as error:
        kind = here.suffix.removeprefix(".")
        raise SpecError(f"{file.path}: no {kind} file: {_line(error)}; the run is not taken") from error


def _check_csv(here: Path) -> None:
    with here.open(encoding="utf-8") as lines:
        if any("\0" in line for line in lines):
            raise ValueError("holds a zero byte")


def _check_safetensors(here: Path, size: int) -> None:
    """Check the header: its length, and that every tensor lies within the file."""
    with here.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(data.read(length))
    tensors = [value for key, value in header.items() if key != "__metadata__"] if isinstance(header, dict) else [None]
    for tensor in tensors:
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and 0 <= offsets[0] <= offsets[1] <= size - 8 - length):
            raise ValueError("a tensor that is not within the file")


# --- the hub


def _api() -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise SpecError("huggingface_hub is not installed: uv sync --extra hub, or pip install slm-lab[hub]") from None
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


@contextlib.contextmanager
def _hub_errors(repo: str) -> Generator[None]:
    """Turn what goes wrong at the hub into one line."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
    )

    login = "`hf auth login`, or a token in HF_TOKEN, says who you are"
    try:
        yield
    except RepositoryNotFoundError as error:
        raise SpecError(f"{repo}: no such dataset repository, or not yours to see; {login}") from error
    except LocalTokenNotFoundError as error:
        raise SpecError(f"{repo}: needs you to be known; {login}") from error
    except HFValidationError as error:
        raise SpecError(f"--repo {repo}: {_line(error)}; write USER/NAME") from error
    except HfHubHTTPError as error:
        remedy = f"; {login}" if error.response is not None and error.response.status_code in (401, 403) else ""
        raise SpecError(f"{repo}: {_line(error)}{remedy}") from error
    except OSError as error:
        raise SpecError(f"{repo}: {_line(error)}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0].rstrip("2") not in ("httpx", "httpcore"):
            raise
        raise SpecError(f"{repo}: the hub cannot be reached: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
