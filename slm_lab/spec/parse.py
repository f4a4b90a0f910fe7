"""From the text of a spec file to plain values: JSON with comments and trailing commas, and YAML."""

import json
import re
from pathlib import Path
from typing import Any

from slm_lab.spec.errors import SpecError

YAML_SUFFIXES = (".yaml", ".yml")

_COMMENT = r"//[^\n]*|/\*.*?\*/"
# atomic, so that a comment is never taken for shorter than it is: `], // and, }` has no trailing comma
_TEXT_OR_NOISE = re.compile(rf'"(?:\\.|[^"\\\n])*"|{_COMMENT}|,(?=(?>\s|{_COMMENT})*+[}}\]])', re.DOTALL)
_YAML_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_file(path: Path) -> Any:
    """Read a JSON file, or a YAML file if its name says so.

    Raises:
        SpecError: it cannot be read or parsed; the line names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: is not text; a spec file is JSON or YAML in UTF-8") from None
    try:
        return parse_yaml(text) if path.suffix in YAML_SUFFIXES else parse_json(text)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None


def parse_json(text: str) -> Any:
    """Parse JSON in which `// …` and `/* … */` comments and trailing commas are allowed.

    Raises:
        ValueError: the text is not that, or a key stands twice in one object.
    """
    plain = _TEXT_OR_NOISE.sub(_blank_noise, text)
    try:
        return json.loads(plain, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{place}: not JSON: {error.msg[0].lower()}{error.msg[1:]}") from None


def _blank_noise(match: re.Match[str]) -> str:
    # blanks in place of comments, so that line and column of an error stay true
    return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} stands twice in one object; remove one of them")
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON; write a number or null")


def parse_yaml(text: str) -> Any:
    """Parse YAML with anchors and merges; `3e-4` and `1e7` are numbers, as in YAML 1.2.

    Raises:
        ValueError: the text is not that, or a key stands twice in one mapping.
    """
    import yaml  # only for YAML files: it takes a while to import

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            _check_keys(node)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"^(?:{_YAML_FLOAT.pattern})$"), [*"-+.0123456789"]
    )
    try:
        tree = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    json.dumps(tree, default=str)  # an alias within what it stands for is a ValueError: circular reference detected
    return tree


def _check_keys(node: Any) -> None:
    seen = set()
    for key, _ in node.value:
        place = f"line {key.start_mark.line + 1}"
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != "tag:yaml.org,2002:str":
            raise ValueError(f"{place}: key {key.value} is not text; put it in quotes")
        if key.value in seen:
            raise ValueError(f"{place}: key {key.value!r} stands twice in one mapping; remove one of them")
        seen.add(key.value)
