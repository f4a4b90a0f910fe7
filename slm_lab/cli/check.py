"""What a spec comes to, before anything is run; and what specs there are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slm_lab.cli.run import read_spec
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.spec import Spec

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def check_one(spec_file: str, spec_name: str | None, sets: Sequence[str]) -> None:
    """Print what a spec resolves to, the size of its nets, and of its memory beside what is free.

    Raises:
        SpecError: the spec is bad, or its memory does not fit.
    """
    spec = read_spec(spec_file, spec_name, sets)
    from slm_lab.experiment.measure import free_memory, measure
    from slm_lab.lib.device import available_cores

    size, free = measure(spec), free_memory()
    print(json.dumps({spec.name: spec.to_dict()}, indent=2))
    print(f"spec       {spec.name}, hash {spec.hash}")
    for net, count in size.parameters.items():
        print(f"net        {net}: {count:,} parameters")
    at_once = min(spec.meta.max_session, available_cores())
    needed = size.memory_bytes * at_once
    print(
        f"memory     {human(size.memory_bytes)} a session, {at_once} at once: {human(needed)} "
        f"of {'unknown' if free is None else human(free)} free"
    )
    if free is not None and needed > free:
        raise SpecError(
            f"agent.memory: takes {human(needed)}, but {human(free)} are free; {_remedy(spec, needed, free)}"
        )


def _remedy(spec: "Spec", needed: int, free: int) -> str:
    max_size = getattr(spec.agent.memory, "max_size", None)
    if max_size is None:
        return "use fewer sessions or environments"
    return f"a max_size of {max_size * free // needed:,} would just fit"


def human(nbytes: float) -> str:
    """Write a number of bytes: `human(2_500_000)` is "2.5 MB"."""
    for unit in UNITS:
        if nbytes < 1000 or unit == UNITS[-1]:
            break
        nbytes /= 1000
    return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
