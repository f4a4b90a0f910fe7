"""Plain files: JSON and CSV that a crash at any moment leaves either whole or recognisably cut short."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Put `data` at `path` so that a reader, or a power cut, meets the old file or the new one and nothing between.

    The data is written to a sibling, forced to the disk, and renamed over `path`; then the folder entry is forced too.

    Args:
        path: where; the folder must exist.
        data: bytes as they are, text as UTF-8.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the entries of `folder` to the disk, where the system can do that."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, e.g. half-written.
    """
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically: numpy numbers and arrays as numbers and lists, NaN and infinity as null.

    One key a line, but a list of plain values on one, so that a series does not fill screens.
    """
    atomic_write(path, _pretty(_jsonable(value)) + "\n")


def _pretty(value: Any, indent: str = "\n") -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{" + inner + f",{inner}".join(items) + indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + inner + f",{inner}".join(_pretty(item, inner) for item in value) + indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def file_word(text: str) -> str:
    """Return a text as part of a file name: `file_word("ALE/Pong-v5 (mode=1)")` is "ALE_Pong-v5_mode_1"."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")


class RowWriter:
    """Appends rows of numbers to a CSV file, one flush a row, so that a crash costs the row in hand at most.

    The first row makes the header; a file that is already there keeps its own, and is gone on with. What a crash left
    of a last line is cut off first.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns: list[str] | None = None
        if self.path.exists():
            cut_partial_line(self.path)
            header = self.path.read_text(encoding="utf-8").partition("\n")[0]
            self.columns = header.split(",") if header else None
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row. None and NaN become an empty cell, and so does a column that the row lacks.

        Raises:
            ValueError: the row has a column that the header lacks; a cell would be lost silently.
        """
        if self.columns is None:
            self.columns = list(row)
            self._file.write(_line(self.columns))
        if extra := [key for key in row if key not in self.columns]:
            raise ValueError(
                f"{self.path.name}: no column {', '.join(extra)}; the header has {', '.join(self.columns)}"
            )
        self._file.write(_line([_cell(row.get(column)) for column in self.columns]))
        self._file.flush()

    def sync(self) -> None:
        """Force the rows to the disk, e.g. before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: str | Path, warn: bool = True) -> dict[str, np.ndarray]:
    """Read a CSV file of numbers.

    Lines that are no whole row, such as what a crash left of the last one, are left out with a warning that names the
    file. A file without a header gives no columns.

    Args:
        path: of the file.
        warn: False where the file has been read before.

    Returns:
        column → float64 values [rows], NaN where a cell is empty.

    Raises:
        OSError: the file cannot be read.
    """
    columns, lines, dropped = _split_rows(Path(path).read_bytes())
    if dropped and warn:
        logger.warning("{}: left out {} line(s) that are no whole row", path, dropped)
    table = np.array([[_number(cell) for cell in line] for line in lines], dtype=np.float64)
    table = table.reshape(len(lines), len(columns))
    return {column: table[:, index] for index, column in enumerate(columns)}


def rows_text(columns: Mapping[str, Any]) -> str:
    """Return columns of numbers as a CSV file has them, NaN as an empty cell; no columns are an empty file."""
    if not columns:
        return ""
    rows = zip(*columns.values(), strict=True)
    return _line(list(columns)) + "".join(_line([_cell(cell) for cell in row]) for row in rows)


def truncate_rows(path: str | Path, frame: int) -> None:
    """Drop every row whose `frame` is past `frame`, and any half-written line, atomically.

    A resumed session calls it with its checkpoint's frame, as the frames after that are about to be lived again.
    """
    path = Path(path)
    if not path.exists():
        return
    columns, lines, _ = _split_rows(path.read_bytes())
    if not columns:
        atomic_write(path, b"")
        return
    at = columns.index("frame")
    atomic_write(path, _line(columns) + "".join(_line(line) for line in lines if float(line[at] or "nan") <= frame))


def _split_rows(data: bytes) -> tuple[list[str], list[list[str]], int]:
    """Return header, whole rows, and how many lines were none."""
    whole, _, partial = data.rpartition(b"\n")
    header, *lines = whole.decode("utf-8", errors="replace").splitlines() or [""]
    columns = header.split(",") if header else []
    rows = [row for row in csv.reader(lines) if len(row) == len(columns) and all(_is_number(cell) for cell in row)]
    return columns, rows, len(lines) - len(rows) + bool(partial)


def cut_partial_line(path: Path) -> None:
    """Cut off what a crash left of the last line of a file."""
    with path.open("rb+") as file:
        data = file.read()
        if not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan


def _cell(value: Any) -> str:
    if value is None:
        return ""
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, float):
        if not math.isfinite(number):
            return "" if math.isnan(number) else repr(number)
        # 5000.0 is 5000: counts read as counts
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return str(int(number)) if isinstance(number, bool) else str(number)


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
