"""What every part of a spec is made of: a strict, frozen model whose complaints are one clear line."""

import ast
import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from slm_lab.spec.errors import SpecError

MAX_LISTED = 40
"""Known keys that an error lists before it says how many more there are."""


def _integral(value: Any) -> Any:
    """Take 1e6 for 1000000, as spec files write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_integral)]
"""A whole number from 1 on."""
Several = Annotated[int, Field(ge=2), BeforeValidator(_integral)]
"""A whole number from 2 on."""
Natural = Annotated[int, Field(ge=0), BeforeValidator(_integral)]
"""A whole number from 0 on."""
Number = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
"""A number in [0, 1]."""


class Section(BaseModel):
    """One part of a spec. Its fields are its keys; the text below a field says meaning, unit and range."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            cls.check_unknown(raw)
            for key, field in cls.model_fields.items():
                if field.is_required() and key not in raw:
                    raise problem(key, f"missing ({descriptions(cls)[key].rstrip('.')})")
        return raw

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for key, text in descriptions(cls).items():
            if key in properties:
                properties[key]["description"] = text
        return schema

    @classmethod
    def check_unknown(cls, raw: Mapping[str, Any]) -> None:
        """Raise if `raw` has a key that this section does not know."""
        unknown = [key for key in raw if key not in cls.model_fields]
        if unknown:
            raise problem(unknown[0], unknown_text("unknown key", unknown[0], cls.model_fields), more=len(unknown) - 1)

    def changed(self, keys: Iterable[str]) -> list[str]:
        """Return which of `keys` are not as they are by default."""
        return [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]


@cache
def descriptions(section: type[Section]) -> dict[str, str]:
    """Return the text below each field of a section.

    Read from the source when asked for: pydantic would do it at every import, which takes longer than all the rest.
    """
    texts = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, Section):
            continue
        (definition,) = ast.parse(inspect.getsource(cls)).body
        for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[key] = " ".join(words.split())
    return texts


def problem(key: str, message: str, more: int = 0) -> PydanticCustomError:
    """Return an error for a validator to raise.

    Args:
        key: dotted path, relative to the section whose validator it is.
        message: what is wrong and how to put it right, without braces.
        more: further errors that this one stands for.
    """
    return PydanticCustomError("spec", "{message}", {"key": key, "message": message, "more": more})


def unknown_text(what: str, word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return e.g. "unknown key; did you mean 'gamma'? (known: gamma, lam)"; `prefix` stood before the word."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"; did you mean {prefix + near[0]!r}?" if near else ""
    rest = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
    return f"{what}{hint} (known: {', '.join(known[:MAX_LISTED])}{rest})"


def either(meaning: str) -> WrapValidator:
    """Let a field of several types complain with one text: "must be `meaning`"."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise problem("", f"must be {meaning}, got {_show(value)}") from None

    return WrapValidator(check)


def list_or_name(items: Any, names: Any) -> Any:
    """Return the type of a field that is a list or one of a few names; an error is about the one that was meant."""
    pick = Discriminator(lambda value: "<name>" if isinstance(value, str) else "<list>")
    return Annotated[Annotated[items, Tag("<list>")] | Annotated[names, Tag("<name>")], pick]


def one_of(what: str, key: str, registry: Mapping[str, type[Section]], outside: type[Section] | None = None) -> Any:
    """Return the type of a part that comes in several kinds, told apart by the value of `key`.

    Args:
        what: the kind of part, for messages.
        key: "name" or "type".
        registry: the kinds by that value.
        outside: the kind of every value "my_package.module:Name", where there are such.
    """

    def is_outside(kind: Any) -> bool:
        return outside is not None and ":" in str(kind)

    def tag(value: Any) -> str | None:
        kind = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        return "<outside>" if is_outside(kind) else kind

    def pick(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind, known = value.get(key), ", ".join(registry)
        if kind is None:
            raise problem(key, f"missing; the {what}: one of {known}")
        if str(kind) not in registry and not is_outside(kind):
            raise problem(key, unknown_text(f"unknown {what} {kind!r}", str(kind), registry))
        return value

    models: dict[str, Any] = {**registry, **({"<outside>": outside} if outside is not None else {})}
    kinds: Any = Union[tuple(Annotated[model, Tag(name)] for name, model in models.items())]  # noqa: UP007 - made at run time
    return Annotated[kinds, Discriminator(tag), BeforeValidator(pick)]


def as_spec_error(error: ValidationError, kinds: Iterable[str] = ()) -> SpecError:
    """Turn pydantic's report into one line: the most important problem, and how many more there are.

    Args:
        error: the report.
        kinds: names of kinds (see `one_of`), which pydantic mixes into its paths.
    """
    details = error.errors(include_url=False)
    first = next((detail for detail in details if detail["type"] == "spec"), details[0])
    path, message = _describe(first, set(kinds))
    more = len(details) - 1 + sum(detail.get("ctx", {}).get("more", 0) for detail in details)
    return SpecError(f"{path}: {message}" + (f" (and {more} more)" if more else ""))


def locate(error: ValidationError) -> tuple[str, str]:
    """Return path and message of the first problem in a single section."""
    return _describe(error.errors(include_url=False)[0], set())


def _describe(detail: ErrorDetails, kinds: set[str]) -> tuple[str, str]:
    context = detail.get("ctx", {})
    parts = [str(part) for part in detail["loc"] if part not in kinds and not str(part).startswith("<")]
    path = ".".join(part for part in (*parts, context.get("key", "")) if part) or "spec"
    if detail["type"] == "spec":
        return path, context["message"]
    must = _MUST.get(detail["type"])
    text = must.format(**context) if must else detail["msg"]
    return path, f"{text}, got {_show(detail['input'])}"


_MUST = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object {{…}}",
    "model_type": "must be an object {{…}}",
    "union_tag_not_found": "must be an object {{…}}",
    "model_attributes_type": "must be an object {{…}}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def _show(value: Any) -> str:
    try:
        text = json.dumps(value)
    except TypeError:
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
