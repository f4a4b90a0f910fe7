"""The rows that the benchmark page already has: read back, they stay in it when their run folders are gone."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slm_lab.experiment.benchmark import CURVES_HEAD, NONE, RUNS_HEAD, Result, page_of, rank_of, read_results
from slm_lab.lib.table import read_markdown_table
from slm_lab.spec.algorithm import ALGORITHMS
from slm_lab.spec.errors import SpecError
from slm_lab.spec.loader import LIBRARY, read_specs, spec_files

SECONDS = {"h": 3600, "min": 60, "s": 1}


@dataclass(frozen=True)
class WrittenResult(Result):
    """What a page says of a trial; it says nothing of `sessions` and `baseline`.

    Attributes:
        written_mean: the score as it stands there; the seeds are rounded, so their mean could be another.
        written_interval: its interval, likewise.
    """

    written_mean: float
    written_interval: tuple[float, float]

    @property
    def mean(self) -> float:
        """Mean of the scores; NaN if there is none."""
        return self.written_mean

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean."""
        return self.written_interval


def extended_page(file: Path, targets: Iterable[str | Path]) -> str:
    """Return the page that is in a file with some runs added; they replace what it says of folders of their names.

    Args:
        file: the page.
        targets: run folders, or folders of runs such as `data`.

    Raises:
        SpecError: the file is no such page, or there is no run.
    """
    old = read_page(file)
    given = read_results(targets)
    names = {result.run for result in given}
    return page_of([*(result for result in _ranked(old, given) if result.run not in names), *given])


def read_page(file: Path) -> list[WrittenResult]:
    """Read back what runs came to from the page about them; `rank` is the column in its matrix.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return _results(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        remedy = "name another file, or move this one away"
        raise SpecError(
            f"{file}: not a page of `slm-lab benchmark-table` that runs can be added to: {why}; {remedy}"
        ) from error


def _results(page: str) -> list[WrittenResult]:
    _, *parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    (_, _, *columns), _ = read_markdown_table(sections.get("Scores", ""))
    runs = _rows(sections.get("Runs", ""), RUNS_HEAD)
    curves = _rows(sections.get("Curves", ""), CURVES_HEAD)
    if [(row[0], row[2], row[-1]) for row in runs] != [(row[0], row[1], row[-1]) for row in curves]:
        raise ValueError("its runs and its curves are not of the same runs")
    if missing := {row[1] for row in runs}.difference(columns):
        raise ValueError(f"no column {', '.join(sorted(missing))} in its matrix")
    notes = sections.get("Notes", "").splitlines()
    return [_result(row, curve[2:-1], columns, notes) for row, curve in zip(runs, curves, strict=True)]


def _rows(section: str, head: Sequence[str]) -> list[list[str]]:
    found, rows = read_markdown_table(section)
    if found != head:
        raise ValueError(f"its columns are {', '.join(found)}, not {', '.join(head)}")
    return rows


def _result(row: Sequence[str], curve: Iterable[str], columns: Sequence[str], notes: Iterable[str]) -> WrittenResult:
    env, algorithm, spec, score, interval, seeds, each_seed, frames, wall, spec_hash, commit, run = row
    count, _, seed = seeds.removesuffix(")").partition(" (from ")
    low, high = [NONE] * 2 if interval == NONE else interval.strip("[]").split(", ")
    about = f"- {run}: "
    # two trials of one folder share their notes
    own_notes = dict.fromkeys(note.removeprefix(about) for note in notes if note.startswith(about))
    return WrittenResult(
        env=env,
        algorithm=algorithm,
        rank=columns.index(algorithm),
        max_frame=float(frames),
        spec_name=spec,
        sessions=(),
        scores=tuple(map(_number, each_seed.split(", ")))[: int(count)],
        baseline=math.nan,
        seed=int(seed) if seed else None,
        wall=_seconds(wall),
        curve=tuple(map(_number, curve)),
        spec_hash=spec_hash,
        commit=commit,
        run=run,
        notes=tuple(own_notes),
        written_mean=_number(score.removesuffix("\\*")),
        written_interval=(_number(low), _number(high)),
    )


def _number(text: str) -> float:
    return math.nan if text == NONE else float(text)


def _seconds(text: str) -> float:
    """Read a time: `_seconds("1 h 02 min")` is 3720."""
    if text == NONE:
        return math.nan
    words = text.split()
    return float(sum(int(count) * SECONDS[unit] for count, unit in zip(words[::2], words[1::2], strict=True)))


def _ranked(old: Sequence[WrittenResult], given: Iterable[Result]) -> list[WrittenResult]:
    """Give the results of a page their ranks among all algorithms, in place of the column that they had.

    The rank of a label is that of a given run, of the shipped specs, or of the algorithm of that name. A label that is
    in none of them gets the lowest that leaves it to the right of the column before it.
    """
    known = {name: rank_of(name) for name in ALGORITHMS} | _shipped_ranks()
    known |= {result.algorithm: result.rank for result in given}
    ranks: dict[str, int] = {}
    before, rank = "", 0
    for _, label in sorted({(result.rank, result.algorithm) for result in old}):
        before, rank = label, known.get(label, rank + (label < before))
        ranks[label] = rank
    return [replace(result, rank=ranks[result.algorithm]) for result in old]


def _shipped_ranks() -> dict[str, int]:
    """Return the rank of every label of the shipped benchmarks, e.g. of A2C that of ActorCritic."""
    ranks = {}
    for raw in (raw for file in spec_files(LIBRARY / "benchmark") for raw in read_specs(file).values()):
        match raw:
            case {"agent": {"name": label, "algorithm": {"name": algorithm}}}:
                ranks[label] = rank_of(algorithm)
    return ranks
