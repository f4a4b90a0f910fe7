"""The JSON Schema of spec files, with which editors complete and check them.

`python -m slm_lab.spec.editor` writes it anew; a spec file refers to it by `"$schema": "<path>/spec.schema.json"`.
"""

import json
from typing import Any

from slm_lab.spec.loader import SCHEMA_FILE
from slm_lab.spec.schema import Spec

VARIABLE = {"type": "string", "pattern": r"^\$\{\w+(:-[^}]*)?\}$", "description": "${name} or ${name:-default}"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a spec file."""
    spec = Spec.model_json_schema()
    parts = spec.pop("$defs")
    del spec["properties"]["name"]
    spec["required"].remove("name")
    spec["properties"]["spec_params"] = {
        "type": "object",
        "additionalProperties": {"type": "array", "minItems": 1},
        "description": "Values of ${name}: the spec stands for every combination of them.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Specs of SLM Lab",
        "description": "name of a spec: the spec",
        "type": "object",
        "patternProperties": {"^[_$]": {}},
        "additionalProperties": {"$ref": "#/$defs/Spec"},
        "$defs": _with_variables({"Spec": spec, **parts}) | {"Variable": VARIABLE},
    }


def _with_variables(node: Any) -> Any:
    """Let a variable stand in the place of any number or truth value; leave out pydantic's titles."""
    if isinstance(node, list):
        return [_with_variables(child) for child in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in ("integer", "number", "boolean"):
        outside = {key: node[key] for key in ("description", "default") if key in node}
        inside = {key: value for key, value in node.items() if key not in (*outside, "title")}
        return {"anyOf": [inside, {"$ref": "#/$defs/Variable"}], **outside}
    return {key: _with_variables(child) for key, child in node.items() if key != "title"}


def main() -> None:
    """Write the schema beside the specs."""
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
