"""From a file to checked specs; and the library of specs that ship with the lab."""

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slm_lab.spec.arc import inline_arcs
from slm_lab.spec.errors import SpecError
from slm_lab.spec.parse import YAML_SUFFIXES, read_file
from slm_lab.spec.schema import Spec
from slm_lab.spec.upgrade import upgrade
from slm_lab.spec.variables import (
    Sets,
    fill_variables,
    find_paths,
    find_variables,
    parse_sets,
    parse_value,
    set_path,
    suggest_paths,
)

LIBRARY = Path(__file__).parent
SCHEMA_FILE = LIBRARY / "spec.schema.json"

Raw = dict[str, Any]


class Listed(NamedTuple):
    """A spec that ships with the lab: its file as `load_spec` takes it, its name, and what it is in a few words."""

    file: str
    name: str
    summary: str


def load_spec(file: str | Path, name: str | None = None, sets: Sets = ()) -> Spec:
    """Load one spec.

    Args:
        file: JSON (comments and trailing commas are allowed) or YAML: a path, or a path in the library that ships.
        name: which spec of the file; None for its only one.
        sets: values of `${key}`; a key with a dot is a path into the spec, e.g. "env.max_frame=2000".

    Raises:
        SpecError: one line that names the place and the remedy.
    """
    specs = load_specs(file, name, sets)
    if len(specs) > 1:
        names = ", ".join(spec.name for spec in specs)
        raise SpecError(
            f"spec_params: stands for {len(specs)} specs; pick one with -s, or run all with --job ({names})"
        )
    return specs[0]


def load_specs(file: str | Path, name: str | None = None, sets: Sets = ()) -> list[Spec]:
    """Load one spec, or all that its `spec_params` span: every combination of their values that `sets` leaves open.

    Raises:
        SpecError: one line that names the place and the remedy.
    """
    path, name, raw = _find(file, name)
    given = parse_sets(sets)
    return [_build(name, raw, given, params, path.parent) for params in _combinations(raw, given)]


def combinations(file: str | Path, name: str | None = None, sets: Sets = ()) -> list[dict[str, str]]:
    """Return what `-s` says for each of `load_specs`: variable → value.

    Raises:
        SpecError: one line that names the place and the remedy.
    """
    _, _, raw = _find(file, name)
    return _combinations(raw, parse_sets(sets))


def _find(file: str | Path, name: str | None) -> tuple[Path, str, Raw]:
    path = find_file(file)
    specs = read_specs(path)
    name = _pick(path, name, list(specs))
    return path, name, specs[name]


def _combinations(raw: Raw, given: Mapping[str, str]) -> list[dict[str, str]]:
    params = raw.get("spec_params") or {}
    if not isinstance(params, Mapping) or not all(isinstance(values, list) and values for values in params.values()):
        raise SpecError("spec_params: must be {name: [value, …]}")
    values = [[given[key]] if key in given else list(map(str, listed)) for key, listed in params.items()]
    return [dict(zip(params, picked, strict=True)) for picked in itertools.product(*values)]


def _build(name: str, raw: Raw, given: Mapping[str, str], params: Mapping[str, str], folder: Path) -> Spec:
    """Fill in what is given and one combination of `spec_params`; the name says which environment it is."""
    raw = {key: part for key, part in raw.items() if key != "spec_params"}
    values = {key: value for key, value in given.items() if "." not in key}
    filled, used = fill_variables(raw, {**params, **values})
    for path in given.keys() - values.keys():
        set_path(filled, path, parse_value(given[path]))
    inline_arcs(filled, folder)
    filled, used_by_arcs = fill_variables(filled, {**params, **values})
    used |= used_by_arcs
    for key in values:
        if key not in used:
            raise SpecError(_unused(raw, key, values[key]))
    for key in params:
        if key not in used:
            raise SpecError(f"spec_params.{key}: nothing in the spec reads ${{{key}}}; write it where it belongs")
    filled.pop("name", None)
    named = {"env": values["env"], **params} if "env" in values else params
    parts = [_short(value) if key == "env" else value for key, value in named.items()]
    return Spec.from_dict("_".join([name, *parts]), upgrade(filled))


def spec_names(file: str | Path) -> list[str]:
    """Return the names of the specs in a file, in its order."""
    return list(read_specs(find_file(file)))


def list_specs(word: str = "") -> list[Listed]:
    """List the specs that ship with the lab, or those whose line contains `word`."""
    return [listed for listed in _library() if word.lower() in " ".join(listed).lower()]


def _library() -> Iterator[Listed]:
    for path in spec_files():
        file = path.relative_to(LIBRARY).as_posix()
        for name in read_specs(path):
            spec = load_spec(path, name)
            algorithm, env = spec.agent.algorithm.name, spec.env
            yield Listed(file, name, f"{algorithm} on {env.name}, {env.max_frame:,} frames in {env.num_envs} envs")


def spec_files(folder: Path = LIBRARY) -> list[Path]:
    """Return the spec files in a folder and below it; names that begin with `_` are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".json", *YAML_SUFFIXES))
    return [path for path in paths if not path.name.startswith("_") and path.name != SCHEMA_FILE.name]


def find_file(file: str | Path) -> Path:
    """Return where a spec file is: as given, else in the library ("demo.json" or "slm_lab/spec/demo.json" there).

    Raises:
        SpecError: it is in neither place.
    """
    path = Path(file)
    if path.is_file():
        return path
    if path.is_dir():
        raise SpecError(f"{file}: is a folder; name a spec file in it")
    inside = path.as_posix().removeprefix("./").removeprefix("slm_lab/spec/")
    if (LIBRARY / inside).is_file():
        return LIBRARY / inside
    shipped = {path.relative_to(LIBRARY).as_posix(): path.name for path in spec_files()}
    named_alike = [file for file, last in shipped.items() if difflib.get_close_matches(path.name, [last], cutoff=0.8)]
    near = difflib.get_close_matches(inside, named_alike, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}?" if near else "`slm-lab list` shows what ships"
    raise SpecError(f"{file}: no such file; {hint}")


def read_specs(path: Path) -> dict[str, Raw]:
    """Return the raw specs of a file by name; names that begin with `_` or `$` are none (anchors, $schema).

    Raises:
        SpecError: the file cannot be read, or holds no specs.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise SpecError(f"{path}: must hold {{spec_name: spec}}, not {type(content).__name__}")
    if {"agent", "env"} <= content.keys():  # as an older lab saved the spec of a run
        content = {str(content.get("name", path.stem)): content}
    specs = {name: raw for name, raw in content.items() if not name.startswith(("_", "$"))}
    for name, raw in specs.items():
        if not isinstance(raw, dict):
            raise SpecError(f"{path}: {name}: must be a spec, an object with agent, env and meta")
    if not specs:
        raise SpecError(f"{path}: holds no specs; it must hold {{spec_name: spec}}")
    return specs


def _pick(path: Path, name: str | None, names: list[str]) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    listed = ", ".join(names)
    if name is None:
        raise SpecError(f"{path}: say which of its {len(names)} specs you mean: {listed}")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SpecError(f"{path}: has no spec {name!r}; {hint}(it has {listed})")


def _unused(raw: Raw, key: str, value: str) -> str:
    for path, node in suggest_paths(raw, key).items():
        if not isinstance(node, dict):
            return f"-s {key}: the spec has no ${{{key}}}; write -s {path}={value}"
        inside = find_paths(node, f"{path}.").items()
        numbers = (f"{at}={there}" for at, there in inside if type(there) in (int, float))
        example = f"env.name={value}" if path == "env" else next(numbers, f"{path}.key=…")
        return f"-s {key}: {path} is an object; set what is in it, as in -s {example}"
    known = ", ".join(find_variables(raw)) or "no variables"
    return (
        f"-s {key}: the spec has no ${{{key}}} (it has {known}); a key with a dot is a path, as in -s env.name={value}"
    )


def _short(value: str) -> str:
    """Return the part of an environment's name that goes into a spec's: ALE/Pong-v5 -> pong."""
    short = value.rpartition("/")[2].rpartition(":")[2].partition("-")[0].lower()
    return re.sub(r"[^\w.+]", "", short)  # what is no name at all, env says
