"""`python -m bench [WORK ...]` measures; `python -m bench report FILE.json … -o docs/PERFORMANCE.md` writes it up."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.harness import Setup, compare, fresh_compiler_cache
from bench.machine import describe
from bench.report import render, write_document
from bench.sides import LAB, PEERS, installed
from bench.works import WORKS


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; return the exit code."""
    given = parse(sys.argv[1:] if arguments is None else arguments)
    if "files" in given:
        write_document([json.loads(file.read_text(encoding="utf-8")) for file in given.files], given.output)
        return 0
    return run(given)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line; a first word `report` is the other command."""
    if words and words[0] == "report":
        parser = argparse.ArgumentParser(prog="python -m bench report", description="Tables from what was measured.")
        parser.add_argument("files", metavar="FILE.json", nargs="+", type=Path)
        parser.add_argument("-o", "--output", type=Path, required=True)
        return parser.parse_args(words[1:])
    parser = argparse.ArgumentParser(prog="python -m bench", description="The lab beside its peers, on the same work.")
    parser.add_argument("works", metavar="WORK", nargs="*", help=f"of {', '.join(WORKS)}; all of them by default")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which every side takes its turn (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window (10)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds between the first update and the window (3)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"who is compared ({','.join(PEERS)})")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the lab")
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON")
    given = parser.parse_args(words)
    given.peers = [name for name in given.peers.split(",") if name]
    for kind, names, known in (("work", given.works, WORKS), ("peer", given.peers, PEERS)):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"unknown {kind} {', '.join(unknown)}; use {', '.join(known)}")
    return given


def run(given: argparse.Namespace) -> int:
    """Measure."""
    if not installed("psutil"):
        say("psutil is not installed; run it as: uv run --group bench python -m bench")
        return 2
    setup = Setup(given.seconds, given.warmup, given.rounds, given.precision)
    measured = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe(), "setup": asdict(setup)}
    measured["works"] = {}
    clean_up = fresh_compiler_cache()
    try:
        for name in given.works or WORKS:
            measured["works"][name] = compare(WORKS[name], [LAB, *given.peers], setup, say)
            if given.output is not None:  # what is there so far is kept if the rest is not wanted
                given.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    finally:
        clean_up()
    print(render(measured))  # noqa: T201
    return 0


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
