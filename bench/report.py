"""Tables of what was measured, for the terminal and for docs/PERFORMANCE.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.flops import flops_per_step
from bench.maths import middle, ratios
from bench.sides import LAB, SIDES
from bench.works import WORKS, Work

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NONE = "–"
HEAD = """# Performance

How fast the lab trains beside what people use, on the same work. Everything between the two marks below is written by
`python -m bench report`; what stands outside of them is kept.
"""
HOW = """## How it is measured

`uv run --group bench python -m bench -o FILE.json` runs the lab and its peers on the same work: the same environment
and number of environments, nets, activation, batch sizes, epochs, gradient steps per frame, optimiser. One process runs
at a time; in every round all of them take their turn, and a round begins with another one each time, so that a machine
that is slower for a while is so for all of them, and a ratio compares what was measured within minutes.

- **frames/s**: environment steps over all environments (Atari's frame skip is not counted), learning included, in a
  window after the first update and a warm-up. The window begins and ends right after an update. The lab runs a session
  of a spec (`bench/specs/`), writing its rows and checkpoints as it does for users.
- **ratio**: lab ÷ fastest peer of the same round; the median over the rounds counts.
- **threads**: every side is tried with one and with two threads before the rounds, and keeps to what was faster.
- **GFLOP/s**: of the matrix products of the gradient steps (acting is not counted); **of the rate**: their share of
  what the machine reaches in products of 1024 × 1024 matrices on all cores, in float32, or in the lab's precision.
- **first update**: seconds from the launch of the process to the end of the first update, the compiler's cache being
  warm; in brackets with an empty one.
- **memory**: the largest sum of the resident memory of the process and its children; pages that they share count twice.
- **a trial**: four seeds, from the launch to the end of the last. The lab's own command, with the sessions that it runs
  at once, curves, checkpoints, metrics and graphs; the peers as four processes at the same time, which write nothing.
- **single file**: scripts written for this (`bench/scripts/`): *eager* in the manner of CleanRL; *compiled* in the
  manner of LeanRL, the update with backward and optimiser handed to `torch.compile`; *one graph*: gradient, clipping
  and Adam as functions in a single graph without breaks, as a yardstick of what torch can do.
- The peers run in float32, which is what they do by default, whatever the lab's precision.
"""


def render(measured: Mapping[str, Any]) -> str:
    """Return the tables of one run of the benchmark."""
    works = [(WORKS[name], entry["sides"]) for name, entry in measured["works"].items()]
    lab_first = [_row(work, table, measured["setup"]["precision"]) for work, table in works]
    head = ["work", "SLM Lab, frames/s", "fastest peer", "its frames/s", "ratio per round", "median ratio", "to reach"]
    parts = [table_of(head, lab_first)]
    for work, table in works:
        rows = [_detail(name, table, flops_per_step(work), _rate(measured, name)) for name in table]
        parts += [f"### {work.title}\n\n{said(work)}", table_of(DETAIL, rows)]
        reasons = [f"- {SIDES[name].title}: {entry['error']}" for name, entry in table.items() if entry["error"]]
        parts += ["\n".join(reasons)] if reasons else []
    return "\n\n".join(parts) + "\n"


DETAIL = (
    "side",
    "threads",
    "frames/s",
    "per round",
    "lab ÷ it",
    "GFLOP/s",
    "of the rate",
    "first update, s",
    "memory, MiB",
)


def said(work: Work) -> str:
    """Return what is done, in words and numbers."""
    net = f"{'Nature CNN and ' if work.images else ''}{'×'.join(map(str, work.hidden))} {work.activation}"
    if work.algorithm == "ppo":
        rollout = f"{work.num_envs} environments × {work.horizon} steps"
        how = f"{rollout}, {work.epochs} epochs, minibatches of {work.batch_size}"
    else:
        how = f"one environment, an update per frame, batches of {work.batch_size}"
    whole = f"; {work.sessions} seeds of {work.max_frame:,} frames, from launch to results" if work.sessions else ""
    return f"{how}; {net}; Adam {work.lr:g}{whole}."


def fastest(table: Mapping[str, Any]) -> str | None:
    """Return the peer with the highest median; None if none finished."""
    medians = {name: middle(fps_of(entry)) for name, entry in table.items() if name != LAB}
    known = {name: fps for name, fps in medians.items() if fps is not None}
    return max(known, key=lambda name: known[name]) if known else None


def fps_of(entry: Mapping[str, Any]) -> list[float | None]:
    """Return frames per second by round."""
    return [result["fps"] for result in entry["rounds"]]


def ratios_to(table: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """Return lab / fastest of `names`, by round."""
    peers = [fps_of(table[name]) for name in names if table[name]["rounds"]]
    return ratios(fps_of(table[LAB]), peers) if LAB in table and peers else []


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of Markdown, its columns aligned to be read as it is."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(work: Work, table: Mapping[str, Any], precision: str) -> list[str]:
    found = ratios_to(table, [name for name in table if name != LAB])
    best, lab = fastest(table), table.get(LAB)
    floor = dict(work.floors).get(precision)
    return [
        work.title,
        number(middle(fps_of(lab)) if lab else None),
        SIDES[best].title if best else NONE,
        number(middle(fps_of(table[best])) if best else None),
        ", ".join(f"{ratio:.2f}" for ratio in found) or NONE,
        f"{middle(found):.2f}" if found else NONE,
        f"≥ {floor}" if floor else NONE,
    ]


def _rate(measured: Mapping[str, Any], name: str) -> float | None:
    rates = measured["machine"]["matrix"]
    return rates[measured["setup"]["precision"] if name == LAB else "float32"] if rates else None


def _detail(name: str, table: Mapping[str, Any], flops: int, rate: float | None) -> list[str]:
    entry, rounds = table[name], table[name]["rounds"]
    found = ratios_to(table, [name]) if name != LAB else []
    steps = middle(result["steps"] for result in rounds)
    first, cold = middle(result["first"] for result in rounds), entry["first_cold"]
    return [
        SIDES[name].title,
        str(entry["threads"] or NONE),
        number(middle(fps_of(entry))),
        ", ".join(number(fps) for fps in fps_of(entry)) or NONE,
        f"{middle(found):.2f}" if found else NONE,
        f"{steps * flops / 1e9:.1f}" if steps else NONE,
        f"{steps * flops / rate:.0%}" if steps and rate else NONE,
        f"{first:.1f}{f' ({cold:.1f})' if cold else ''}" if first else NONE,
        number(max(result["memory"] for result in rounds) / 2**20 if rounds else None),
    ]


def number(value: float | None) -> str:
    """Write a number without decimals; – where there is none."""
    return f"{value:,.0f}" if value is not None else NONE


def document(runs: Sequence[Mapping[str, Any]], before: str | None = None) -> str:
    """Return docs/PERFORMANCE.md.

    Args:
        runs: what was measured, one for each JSON file.
        before: the document so far; what stands outside of the marks is kept.
    """
    parts = [HOW]
    for run in runs:
        parts += [f"## {run['made'][:10]}, lab in {run['setup']['precision']}\n\n{_where(run)}", render(run)]
    written = "\n\n".join([BEGIN, *(part.strip() for part in parts), END])
    if before is None or BEGIN not in before or END not in before:
        return f"{HEAD}\n{written}\n"
    return before.partition(BEGIN)[0] + written + before.partition(END)[2]


def _where(run: Mapping[str, Any]) -> str:
    machine, setup = run["machine"], run["setup"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if machine["memory"] else ""
    rates = machine["matrix"] or {}
    matrix = "".join(f", {rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    load = f"; load before it began {machine['load']:.1f}" if machine["load"] is not None else ""
    machine_line = f"{machine['processor']}, {machine['cores']} cores{memory}{matrix}; {machine['system']}; "
    commit = machine["git_commit"] or "unknown"
    windows = f"windows of {setup['seconds']:g} s after a warm-up of {setup['warmup']:g} s"
    return (
        f"{machine_line}Python {machine['python']}; {versions}; commit {commit}. "
        f"{setup['rounds']} rounds, {windows}{load}."
    )


def write_document(runs: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the document; keep what stands outside of the marks."""
    text = document(runs, file.read_text(encoding="utf-8") if file.exists() else None)
    file.write_text(text, encoding="utf-8")
