"""The spec: the whole truth about a run, read from a file, upgraded, checked once, then frozen."""

from slm_lab.spec.errors import SpecError
from slm_lab.spec.loader import list_specs, load_spec
from slm_lab.spec.schema import AgentSpec, EnvSpec, MemorySpec, MetaSpec, NetSpec, Spec, VarSpec

__all__ = [
    "AgentSpec",
    "EnvSpec",
    "MemorySpec",
    "MetaSpec",
    "NetSpec",
    "Spec",
    "SpecError",
    "VarSpec",
    "list_specs",
    "load_spec",
]
