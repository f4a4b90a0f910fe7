"""What a spec comes to, before anything is run; and what specs there are."""

import atexit
import gc
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.spec import Spec

echo = print  # what a command is asked for goes to stdout
UNITS = ("bytes", "kB", "MB", "GB", "TB")


@contextmanager
def uncollected() -> Generator[None]:
    """Look for no garbage here, nor when the process ends: what imports make is none.

    To look through all that torch makes takes a fifth of a second while it is imported, and as much at the end.
    """
    atexit.register(gc.freeze)
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@uncollected()
def check_one(spec_file: str, spec_name: str | None, sets: Sequence[str]) -> None:
    """Print what a spec resolves to, the size of its nets, and of its memory beside what is free.

    Raises:
        SpecError: the spec is bad, or its memory does not fit.
    """
    from slm_lab.spec import load_spec

    spec = load_spec(spec_file, spec_name, sets)
    # heavy, so only for a spec that is well formed
    from slm_lab.experiment.measure import free_memory, measure, try_ends
    from slm_lab.lib.device import available_cores

    size, free = measure(spec), free_memory()
    echo(json.dumps({spec.name: spec.to_dict()}, indent=2))
    echo(f"spec       {spec.name}, hash {spec.hash}")
    for net, count in size.parameters.items():
        echo(f"net        {net}: {count:,} parameters")
    at_once = spec.meta.at_once(available_cores())
    needed = size.memory_bytes * at_once
    echo(
        f"memory     {human(size.memory_bytes)} a session, {at_once} at once: {human(needed)} "
        f"of {'unknown' if free is None else human(free)} free"
    )
    if spec.search:
        from slm_lab.spec.search_space import SearchSpace

        space = SearchSpace(spec)
        space.check()
        try_ends(spec)
        echo(f"search     {', '.join(parameter.path for parameter in space.parameters)}")
    if free is not None and needed > free:
        raise SpecError(
            f"agent.memory: takes {human(needed)}, but {human(free)} are free; {_remedy(spec, needed, free)}"
        )


def check_all(path: str, sets: Sequence[str]) -> bool:
    """Check every spec of a file or folder; print a line for each.

    Args:
        path: file or folder.
        sets: `KEY=VALUE` texts; each spec takes those that it has a variable for.

    Returns:
        True if all are good.

    Raises:
        SpecError: no such file or folder.
    """
    from slm_lab.spec.loader import find_file

    files = _spec_files(Path(path)) if Path(path).is_dir() else [find_file(path)]
    problems = [problem for file in files for problem in _check_file(file, sets)]
    bad = sum(problem is not None for problem in problems)
    echo(f"{len(problems) - bad} good, {bad} bad")
    return bad == 0


def _spec_files(folder: Path) -> list[Path]:
    """Find the spec files below a folder: not those that begin with `_`, and not the JSON Schema."""
    found = (file for suffix in ("json", "yaml", "yml") for file in folder.rglob(f"*.{suffix}"))
    return sorted(file for file in found if not file.name.startswith("_") and not file.name.endswith(".schema.json"))


def _check_file(file: Path, sets: Sequence[str]) -> Iterator[str | None]:
    """Yield for each spec of a file what is wrong with it, None where nothing is."""
    from slm_lab.spec.loader import read_specs

    try:
        specs = read_specs(file)
    except SpecError as error:
        echo(f"bad   {error}")
        yield str(error)
        return
    for name, raw in specs.items():
        problem = _problem(file, name, [text for text in sets if _takes(raw, text)])
        echo(f"bad   {file} {name}: {problem}" if problem else f"good  {file} {name}")
        yield problem


def _problem(file: Path, name: str, sets: Sequence[str]) -> str | None:
    from slm_lab.spec.loader import load_specs

    try:
        specs = load_specs(file, name, sets)
        from slm_lab.experiment.measure import measure, measure_search
        from slm_lab.spec.search_space import SearchSpace

        for spec in specs:
            if spec.search:
                SearchSpace(spec).check()
            (measure_search if spec.search else measure)(spec)
    except SpecError as error:
        return str(error)
    except Exception as error:  # whatever an environment may raise: one line, and on to the next
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _takes(raw: dict[str, Any], text: str) -> bool:
    key = text.partition("=")[0]
    return "." in key or f"${{{key}" in json.dumps(raw)


def list_shipped(word: str) -> None:
    """Print the shipped specs whose line contains `word`."""
    from slm_lab.spec import list_specs

    listed = list_specs(word)
    if not listed:
        raise SpecError(f"no shipped spec has {word!r} in its line; slm-lab list shows them all")
    widths = [max(len(column) for column in columns) for columns in zip(*listed, strict=True)]
    for file, name, summary in listed:
        echo(f"{file:<{widths[0]}}  {name:<{widths[1]}}  {summary}")


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
