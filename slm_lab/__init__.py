"""SLM Lab: a modular, spec-driven lab for deep reinforcement learning.

>>> from slm_lab import Trial, load_spec
>>> Trial(load_spec("demo.json", "dqn_cartpole")).run()  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm_lab.experiment.trial import Trial
    from slm_lab.spec import Spec, SpecError, load_spec

__version__ = "6.0.0"
__all__ = ["Spec", "SpecError", "Trial", "load_spec"]

_HOME = {
    "Spec": "slm_lab.spec",
    "SpecError": "slm_lab.spec",
    "Trial": "slm_lab.experiment.trial",
    "load_spec": "slm_lab.spec",
}


def __getattr__(name: str) -> Any:
    # torch and pandas take seconds to import, so nothing is imported before it is asked for
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'slm_lab' has no attribute {name!r}")
