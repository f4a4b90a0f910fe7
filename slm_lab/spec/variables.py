"""`${variables}` in a spec, and what `-s key=value` does to it."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from slm_lab.spec.errors import SpecError

Sets = Mapping[str, Any] | Iterable[str]
"""What `-s` says: key -> value, or "key=value" texts."""

_VARIABLE = re.compile(r"\$\{(?P<key>\w+)(?::-(?P<default>[^}]*))?\}")


def parse_sets(sets: Sets) -> dict[str, str]:
    """Return key -> text of `-s key=value`.

    Raises:
        SpecError: one of them is not of this form.
    """
    if isinstance(sets, Mapping):
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in sets.items()}
    pairs = [text.partition("=") for text in sets]
    for key, equals, value in pairs:
        if not key or not equals:
            raise SpecError(
                f"-s {key}{equals}{value}: must be key=value, e.g. -s env=Hopper-v5 or -s env.max_frame=2000"
            )
    return {key.strip(): value for key, _, value in pairs}


def parse_value(text: str) -> Any:
    """Return the number, list, object, true, false or null that `text` writes; else the text itself."""
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


def find_variables(tree: Any) -> list[str]:
    """Return the names of the variables in a tree, in order, each once."""
    return list(dict.fromkeys(match["key"] for _, text in _texts(tree) for match in _VARIABLE.finditer(text)))


def fill_variables(tree: Any, values: Mapping[str, str]) -> tuple[Any, set[str]]:
    """Replace `${key}` by its value, and `${key:-default}` by its default where there is none.

    A text that is nothing but a variable becomes a number where its value writes one.

    Returns:
        the new tree, and the keys of `values` that were used.

    Raises:
        SpecError: a variable has neither value nor default.
    """
    used: set[str] = set()
    for path, text in _texts(tree):
        for match in _VARIABLE.finditer(text):
            if match["key"] in values:
                used.add(match["key"])
            elif match["default"] is None:
                raise SpecError(f"{path}: ${{{match['key']}}} has no value; give one with -s {match['key']}=…")
        if "${" in _VARIABLE.sub("", text):
            raise SpecError(f"{path}: {text!r} is no variable; write ${{name}} or ${{name:-default}}")
    return _filled(tree, values), used


def _filled(node: Any, values: Mapping[str, str]) -> Any:
    match node:
        case dict():
            return {key: _filled(child, values) for key, child in node.items()}
        case list():
            return [_filled(child, values) for child in node]
        case str():
            text = _VARIABLE.sub(lambda match: values.get(match["key"], match["default"]), node)
            return parse_value(text) if _VARIABLE.fullmatch(node) else text
    return node


def set_path(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a dotted path; `agent.0.` and lists of one are the older form of the same.

    Raises:
        SpecError: something on the way has no keys.
    """
    node: Any = raw
    *way, last = path.split(".")
    for part in way:
        if isinstance(node, dict):
            node = node if part == "0" else node.setdefault(part, {})
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        if isinstance(node, list) and len(node) == 1 and isinstance(node[0], dict):
            node = node[0]
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    else:
        raise SpecError(f"-s {path}: there is nothing called {last!r} in {'.'.join(way)}")


def suggest_paths(raw: Any, key: str) -> dict[str, Any]:
    """Return the dotted paths whose last part is `key`, and what stands there."""
    return {path: node for path, node in find_paths(raw).items() if path.rpartition(".")[2] == key}


def find_paths(tree: Any, above: str = "") -> dict[str, Any]:
    """Return what stands at every dotted path, from the outside in."""
    if not isinstance(tree, dict):
        return {}
    found = {f"{above}{key}": child for key, child in tree.items()}
    for key, child in tree.items():
        found |= find_paths(child, f"{above}{key}.")
    return found


def _texts(tree: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(tree, str):
        yield path, tree
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from _texts(child, f"{path}.{key}" if path else str(key))
