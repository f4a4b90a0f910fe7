"""The spec: the whole truth about a run, read from a file, upgraded, checked once, then frozen."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.spec.algorithm import VarSpec
    from slm_lab.spec.editor import json_schema
    from slm_lab.spec.env import EnvSpec
    from slm_lab.spec.loader import list_specs, load_spec, load_specs, spec_names
    from slm_lab.spec.memory import MemorySpec
    from slm_lab.spec.net import NetSpec
    from slm_lab.spec.schema import AgentSpec, MetaSpec, Spec

__all__ = [
    "AgentSpec",
    "EnvSpec",
    "MemorySpec",
    "MetaSpec",
    "NetSpec",
    "Spec",
    "SpecError",
    "VarSpec",
    "json_schema",
    "list_specs",
    "load_spec",
    "load_specs",
    "spec_names",
]

_HOME = {
    "AgentSpec": "schema",
    "EnvSpec": "env",
    "MemorySpec": "memory",
    "MetaSpec": "schema",
    "NetSpec": "net",
    "Spec": "schema",
    "VarSpec": "algorithm",
    "json_schema": "editor",
    "list_specs": "loader",
    "load_spec": "loader",
    "load_specs": "loader",
    "spec_names": "loader",
}


def __getattr__(name: str) -> Any:
    # the models take 0.2 s to build, and `slm-lab --help` needs no more than SpecError
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
