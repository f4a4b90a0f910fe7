"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846), on the lab's own checkpoints.

The trials are a population. At every judgement the worst quarter takes over the checkpoints of the best quarter,
session by session, and its values (exploit); each number of these is multiplied by 0.8 or 1.25 (explore). Choices and
whole numbers are taken over as they are, since nets may be made by them.

The paper judges each member when it is ready, by what the others have come to so far; here all are judged together when
all have got to the frame, so that the same seed is the same search, wherever it runs and however often it was stopped.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from slm_lab.experiment.paths import RunPaths
from slm_lab.spec.search_space import Parameter

QUARTER = 4
FACTORS = (0.8, 1.25)
STARTING = ("base_lrs", "_last_lr")
"""Where torch's schedulers of the learning rate keep what they began with."""


def parents(scores: Mapping[int, float], draw: random.Random) -> dict[int, int]:
    """Return who takes over whom: one of the worst quarter → one of the best quarter.

    Args:
        scores: member → score; NaN is the worst, and nobody takes it over.
        draw: random numbers.
    """
    order = sorted(scores, key=lambda member: (not math.isnan(scores[member]), scores[member], member))
    count = len(order) // QUARTER
    best = [member for member in order[-count:] if not math.isnan(scores[member])]
    return {member: draw.choice(best) for member in order[:count]} if best else {}


def explore(parameters: Sequence[Parameter], values: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return path → value, each number multiplied by a factor and kept within its range."""
    return {parameter.path: _perturbed(parameter, values[parameter.path], draw) for parameter in parameters}


def _perturbed(parameter: Parameter, value: Any, draw: random.Random) -> Any:
    factor = draw.choice(FACTORS)
    if parameter.choices or parameter.whole:
        return value
    low, high = parameter.ends
    if parameter.quantum is None:
        return min(max(value * factor, low), high)
    return min(max(float(f"{round(value * factor / parameter.quantum) * parameter.quantum:.12g}"), low), high)


def take_over(parent: RunPaths, child: RunPaths, sessions: int) -> None:
    """Copy the newest checkpoints of a trial to another one, and what it plays best with.

    The learning rates are left out: those of the child's own spec count.

    Args:
        parent: names of the trial whose they are.
        child: names of the trial that goes on from them.
        sessions: of each.
    """
    from slm_lab.experiment.checkpoint import Checkpoints  # torch: other searches need it in their workers only

    for index in range(sessions):
        for best in (False, True):
            source, target = (
                Checkpoints(paths.model_dir, paths.for_session(index).checkpoint_stem(best), keep=1)
                for paths in (parent, child)
            )
            if loaded := source.load():
                frame, state = loaded
                target.save(frame, state if best else _without_rates(state))


def _without_rates(node: Any) -> Any:
    """Return a state without what its optimisers and schedulers took from the spec."""
    if isinstance(node, list):
        return [_without_rates(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: [{"params": group["params"]} for group in child] if key == "param_groups" else _without_rates(child)
        for key, child in node.items()
        if key not in STARTING
    }
