"""The spec: the whole truth about a run, read from a file, upgraded, checked once, then frozen."""

from slm_lab.spec.algorithm import VarSpec
from slm_lab.spec.env import EnvSpec
from slm_lab.spec.errors import SpecError
from slm_lab.spec.loader import list_specs, load_spec
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
    "list_specs",
    "load_spec",
]
