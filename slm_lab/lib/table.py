"""Tables as Markdown, as plain text, and as CSV."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def read_markdown_table(text: str) -> tuple[list[str], list[list[str]]]:
    """Read back the table that a text ends with, as `markdown_table` has written it.

    Returns:
        head and rows.

    Raises:
        ValueError: there is none, or something else is among its lines.
    """
    lines = list(itertools.dropwhile(lambda line: not line.startswith("|"), text.rstrip("\n").split("\n")))
    if len(lines) < 2:
        raise ValueError("no table")
    head, _, *rows = map(_markdown_cells, lines)
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"a row of a table has not {len(head)} cells")
    return head, rows


def _markdown_cells(line: str) -> list[str]:
    if not (line.startswith("| ") and line.endswith(" |")):
        raise ValueError(f"{line[:40]!r} is no row of a table")
    return [cell.replace("\\|", "|") for cell in line[2:-2].split(" | ")]


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for the terminal; its first column stands to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "".join(_aligned(line, widths) + "\n" for line in lines)


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV; texts are quoted where they must be."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *rows])
    return buffer.getvalue()


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
    return "   ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip()


def counted(number: int, what: str) -> str:
    """Write how many there are: `counted(1, "trial")` is "1 trial"."""
    return f"{number} {what}{'s' * (number != 1)}"
