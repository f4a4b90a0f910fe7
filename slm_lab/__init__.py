"""SLM Lab: a modular, spec-driven lab for deep reinforcement learning.

>>> from slm_lab import Trial, load_spec
>>> Trial(load_spec("demo.json", "dqn_cartpole")).run()  # doctest: +SKIP
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm_lab.experiment.trial import Trial
    from slm_lab.spec import Spec, SpecError, load_spec

__version__ = "6.0.0"
__all__ = ["Spec", "SpecError", "Trial", "load_spec"]

# Read where torch is first imported: a thread that waits for another sleeps after a quarter of a millisecond, not
# after seven. While another program is at work on a core, threads would wait for each other for most of the time.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

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
