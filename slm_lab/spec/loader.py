"""From a file to specs: find it, parse it, fill its variables, upgrade older forms, check."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pydash

from slm_lab.spec.errors import SpecError
from slm_lab.spec.schema import Spec
from slm_lab.spec.upgrade import upgrade

LIBRARY = Path(__file__).parent
"""The specs that ship with the lab."""
SUFFIXES = (".json", ".yaml", ".yml")
_NOT_SPECS = {"spec.schema.json", "_random_baseline.json"}
_VARIABLE = re.compile(r"\$\{(?P<key>[\w.]+)(?::-(?P<default>[^}]*))?\}")

Sets = Mapping[str, str] | Iterable[str]
"""What `-s` says: key -> value, or "key=value" texts."""


class Listed(NamedTuple):
    """A shipped spec."""

    file: str
    name: str
    summary: str


def load_spec(file: str | Path, name: str | None = None, sets: Sets = ()) -> Spec:
    """Load one spec.

    Args:
        file: JSON (comments and trailing commas allowed) or YAML; as it stands, or in the library of shipped specs.
        name: which spec of the file; may be left out if there is only one.
        sets: values for `${key}`; a key with a dot is a path into the spec, e.g. `env.max_frame`.

    Raises:
        SpecError: one line that says what is wrong and where.
    """
    name, raw = resolve(file, name, sets)
    return Spec.from_dict(name, raw)


def resolve(file: str | Path, name: str | None = None, sets: Sets = ()) -> tuple[str, dict[str, Any]]:
    """Return the name and the raw form of one spec, variables filled and older forms upgraded, but not yet checked."""
    path = find_file(file)
    specs = read_specs(path)
    if name is None and len(specs) == 1:
        name = next(iter(specs))
    if name is None or name not in specs:
        raise SpecError(f"{path}: " + _which(name, list(specs)))
    values = parse_sets(sets)
    raw, used = fill_variables(specs[name], {key: value for key, value in values.items() if "." not in key}, f"{path}: {name}")
    raw = upgrade(raw, name)
    for key, value in values.items():
        if "." in key:
            set_path(raw, key, value)
            used.add(key)
    if unused := values.keys() - used:
        raise SpecError(f"-s {sorted(unused)[0]}: {path}: {name} has no ${{{sorted(unused)[0]}}}; a path into the spec has a dot, e.g. env.max_frame")
    return _name_with_env(name, values, used), raw


def find_file(file: str | Path) -> Path:
    """Return the path of a spec file: as given, else below the library of shipped specs.

    Raises:
        SpecError: it is nowhere.
    """
    given = Path(file)
    if given.is_file():
        return given
    text = given.as_posix()
    inside = text.partition("slm_lab/spec/")[2] or text
    if (LIBRARY / inside).is_file():
        return LIBRARY / inside
    if given.is_dir():
        raise SpecError(f"{file}: a folder, not a spec file")
    shipped = [path.relative_to(LIBRARY).as_posix() for path in spec_files(LIBRARY)]
    near = difflib.get_close_matches(inside, shipped, n=1, cutoff=0.6)
    raise SpecError(f"{file}: no such file" + (f"; did you mean {near[0]}?" if near else "; see slm-lab list"))


def read_specs(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file of specs: name -> raw spec. Names that begin with `_` hold YAML anchors, and `$schema` an address.

    Raises:
        SpecError: the file cannot be read or parsed, or holds no spec.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from None
    content = _parse_yaml(text, path) if path.suffix in (".yaml", ".yml") else _parse_json(text, path)
    if not isinstance(content, dict):
        raise SpecError(f"{path}: holds no specs; the outermost level is {{spec_name: spec}}")
    if {"agent", "env", "name"} <= content.keys():  # a saved spec of the older lab: the spec itself
        content = {str(content["name"]): content}
    specs = {str(name): raw for name, raw in content.items() if not str(name).startswith(("_", "$"))}
    if not specs or not all(isinstance(raw, dict) for raw in specs.values()):
        raise SpecError(f"{path}: holds no specs; the outermost level is {{spec_name: spec}}")
    return specs


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        import json5  # slower, but it knows comments and trailing commas

        try:
            return json5.loads(text, allow_duplicate_keys=False)
        except ValueError as error:
            raise SpecError(f"{path}: not JSON: {' '.join(str(error).split())}") from None


def _parse_yaml(text: str, path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 3e-4 and 1e7 as the numbers that they are, which YAML 1.1 does not."""

    number = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\d[\d_]*\.[\d_]*|[-+]?\.\d[\d_]*([eE][-+]?\d+)?")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{number.pattern})$"), list("-+0123456789."))
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def parse_sets(sets: Sets) -> dict[str, str]:
    """Return key -> value of `-s key=value`.

    Raises:
        SpecError: one of them has no `=`.
    """
    if isinstance(sets, Mapping):
        return {str(key): str(value) for key, value in sets.items()}
    pairs = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SpecError(f"-s {text}: write it as key=value")
        pairs[key] = value
    return pairs


def fill_variables(raw: Any, values: Mapping[str, str], where: str) -> tuple[Any, set[str]]:
    """Replace every `${key}` and `${key:-default}` in the texts of `raw`; return it with the keys that were used.

    A text that is nothing but a variable becomes a number where its value is one.

    Raises:
        SpecError: a variable has neither a value nor a default.
    """
    used: set[str] = set()
    missing: list[str] = []

    def replace(match: re.Match[str]) -> str:
        key, default = match["key"], match["default"]
        if key in values:
            used.add(key)
            return values[key]
        if default is None:
            missing.append(key)
        return default or ""

    def fill(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: fill(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [fill(value) for value in tree]
        if not isinstance(tree, str) or "${" not in tree:
            return tree
        filled = _VARIABLE.sub(replace, tree)
        return parse_value(filled) if _VARIABLE.fullmatch(tree) else filled

    filled = fill(raw)
    if missing:
        raise SpecError(f"{where}: ${{{missing[0]}}} has no value; give it with -s {missing[0]}=…")
    return filled, used


def parse_value(text: str) -> Any:
    """Return the JSON value that `text` writes (a number, true, null, a list …), or else the text itself."""
    try:
        number = float(text)
    except ValueError:
        try:
            return json.loads(text)
        except ValueError:
            return text
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and "." not in text else number


def set_path(raw: dict[str, Any], path: str, text: str) -> None:
    """Set a value deep in a raw spec, e.g. `env.max_frame`; an unknown path is found out when the spec is checked."""
    parent = pydash.get(raw, path.split(".")[:-1])
    if not isinstance(parent, dict):
        raise SpecError(f"-s {path}: the spec has no {path.rpartition('.')[0]!r} to set it in")
    pydash.set_(raw, path.split("."), parse_value(text))


def spec_files(folder: Path) -> Iterator[Path]:
    """Find the spec files below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.name not in _NOT_SPECS:
            yield path


def list_specs(word: str = "") -> list[Listed]:
    """List the shipped specs whose line contains `word`."""
    listed = []
    for path in spec_files(LIBRARY):
        for name, raw in read_specs(path).items():
            agent, env = raw["agent"], raw["env"]
            environment = str(env["name"]).replace("${env:-", "").rstrip("}")
            listed.append(Listed(path.relative_to(LIBRARY).as_posix(), name, f"{agent['algorithm']['name']} on {environment}"))
    return [one for one in listed if word.lower() in " ".join(one).lower()]


def _which(name: str | None, names: list[str]) -> str:
    if name is None:
        return f"say which spec: {', '.join(names)}"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"no spec {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}")


def _name_with_env(name: str, values: Mapping[str, str], used: set[str]) -> str:
    """Append the environment that fills `${env}`, so that runs on several do not share a name."""
    if "env" not in used:
        return name
    short = values["env"].rsplit("/", 1)[-1].split("-")[0].rsplit(":", 1)[-1].lower()
    return f"{name}_{short}"
