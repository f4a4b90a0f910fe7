"""What a spec names by where it is: "my_package.module:Name"."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from slm_lab.spec.errors import SpecError

_NOT_FROM_A_SPEC = ("self", "env", "obs_shape", "kwargs", "render_mode")


def look_here() -> str:
    """Let modules of the working directory be found; return the directory."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def import_from(name: str, where: str) -> tuple[ModuleType, str]:
    """Import the module of "module:attribute"; modules of the working directory are found, in child processes too.

    Raises:
        SpecError: there is no such module; `where` is the path of `name` in the spec.
    """
    module, _, attribute = name.partition(":")
    here = look_here()
    try:
        return importlib.import_module(module), attribute
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise SpecError(f"{where}: no module {module!r} (looked in {here} and in the installed packages)") from error


def import_callable(name: str, where: str) -> Callable[..., Any]:
    """Import the class or function "module:attribute".

    Raises:
        SpecError: there is no such module, or it has no such class or function.
    """
    module, attribute = import_from(name, where)
    maker = getattr(module, attribute, None)
    if callable(maker):
        return maker
    raise SpecError(f"{where}: {module.__name__} has no {attribute!r}{did_you_mean(attribute, public_names(module))}")


def wrong_argument(error: TypeError, maker: Callable[..., Any], name: str, where: str) -> SpecError | None:
    """Return what to say if `error` is `maker`'s about a keyword argument that it does not know; None if it is not."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unexpected is None:
        return None
    key = unexpected[1]
    known = [name for name in inspect.signature(maker).parameters if name not in _NOT_FROM_A_SPEC]
    takes = ", ".join(known) or "none"
    return SpecError(f"{where}.{key}: {name} takes no argument {key!r}{did_you_mean(key, known)} (it takes: {takes})")


def public_names(module: ModuleType) -> list[str]:
    """Return the names of what can be called in a module."""
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return e.g. "; did you mean 'Pong' or 'Pooyan'?", or nothing where no known name is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
