"""`python -m bench.sides SIDE WORK …`: one runner, started by the harness."""

import argparse
from importlib import import_module

from bench.meter import Meter
from bench.sides import SIDES
from bench.works import WORKS

SCRIPTS = ("eager", "compiled", "functional")


def main() -> None:
    """Run one side on one work until its meter ends it."""
    parser = argparse.ArgumentParser(prog="python -m bench.sides")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    work = WORKS[given.work]
    meter = Meter(given.seconds, given.warmup, work.max_frame if work.sessions else None)
    if given.side in SCRIPTS:
        import_module(f"bench.scripts.{work.algorithm}").run(work, meter, given.threads, given.side)
    else:
        import_module(f"bench.sides.{given.side}").run(work, meter, given.threads, given.precision)


if __name__ == "__main__":
    main()
