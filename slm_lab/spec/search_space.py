"""The search space of a spec: what its `search` section means.

A key is a path into the spec and a distribution: `"agent.algorithm.gamma__uniform": [0.9, 0.999]`. The distributions
are those of Ray Tune, by name, arguments and bounds:

| distribution | arguments | values |
|---|---|---|
| choice, grid_search | the values | any of them; in a grid, all |
| uniform, loguniform | low, high | floats in between |
| quniform, qloguniform | low, high, q | multiples of q in [low, high] |
| randint, lograndint | low, high | whole numbers in [low, high) |
| qrandint, qlograndint | low, high, q | multiples of q in [low, high] |
| randn, qrandn | mean, deviation (and q) | floats; one in 10⁵ is more than 4.3 deviations off, and none more than 4.8 |

The logarithmic ones take a base as last argument, which changes nothing. What a sampler draws is told apart from the
value that it stands for: a normal number is drawn as its quantile, a list or an object as its JSON text.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from slm_lab.spec.errors import SpecError, warn
from slm_lab.spec.model import unknown_text
from slm_lab.spec.schema import Spec
from slm_lab.spec.variables import set_path

MAX_CORNERS = 256
DRAWN = 50
"""Combinations at random that tell the share of those that make no spec."""
OTHERS = 20
"""Combinations that a value must fail with, to be bad by itself."""
TAIL = 1e-6
"""A normal number is drawn as its quantile between this and one minus this."""
SEARCHED = ("agent", "env")
VAGUE = ("name", "type", "start_val", "end_val", "start_step", "end_step")
"""Keys that stand in many places of a spec."""


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        path: into the spec.
        low: the least that is drawn.
        high: the largest that is drawn.
        log: whether it is drawn evenly on a logarithmic scale.
        step: between draws.
        whole: whether whole numbers are drawn.
        quantum: of the values.
        normal: whose quantiles are drawn.
        choices: all values, where they are listed.
    """

    path: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    whole: bool = False
    quantum: float | None = None
    normal: NormalDist | None = None
    choices: tuple[Any, ...] = ()

    @property
    def labels(self) -> list[Any]:
        """The choices as a study can keep them: lists and objects as JSON text."""
        plain = all(isinstance(value, str | int | float | None) for value in self.choices)
        return list(self.choices) if plain else [json.dumps(value) for value in self.choices]

    def suggest(self, trial: Any) -> Any:
        """Draw, or look up what was drawn, in an Optuna trial; return the value."""
        if self.choices:
            return self.value(trial.suggest_categorical(self.path, self.labels))
        if self.whole:
            low, high = int(self.low), int(self.high)
            return self.value(trial.suggest_int(self.path, low, high, step=int(self.step or 1), log=self.log))
        return self.value(trial.suggest_float(self.path, self.low, self.high, step=self.step, log=self.log))

    def value(self, drawn: Any) -> Any:
        """Return the value that something drawn stands for."""
        if self.choices:
            # by type as well: 1, 1.0 and true are three choices
            place = [(type(label), label) for label in self.labels].index((type(drawn), drawn))
            return self.choices[place]
        if self.normal is not None:
            drawn = self.normal.inv_cdf(drawn)
        if self.quantum is None:
            return drawn
        multiple = round(drawn / self.quantum)
        if self.normal is None:
            multiple = min(max(multiple, _up(self.low, self.quantum)), _down(self.high, self.quantum))
        return multiple * int(self.quantum) if self.whole else float(f"{multiple * self.quantum:.12g}")

    @property
    def ends(self) -> list[Any]:
        """The least and the largest value, or every choice."""
        return list(self.choices) or [self.value(self.low), self.value(self.high)]

    @property
    def grid(self) -> list[Any]:
        """Everything that can be drawn.

        Raises:
            SpecError: that is not a finite number of things.
        """
        if self.choices:
            return self.labels
        if self.log or (self.step is None and not self.whole):
            raise SpecError(f"search: a grid needs finitely many values of {self.path}; use choice or grid_search")
        step = self.step or 1
        drawn = [self.low + place * step for place in range(round((self.high - self.low) / step) + 1)]
        return [int(value) if self.whole else value for value in drawn]


class SearchSpace:
    """What a spec searches.

    Args:
        spec: with a `search` section.

    Raises:
        SpecError: the section says nothing, or something that is wrong.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.parameters = [_parse(key, arguments) for key, arguments in spec.search.items()]
        if not self.parameters:
            raise SpecError(
                "search: nothing to search; write for example "
                '"search": {"agent.algorithm.gamma__uniform": [0.9, 0.999]}'
            )
        paths = [parameter.path for parameter in self.parameters]
        for path in paths:
            if paths.count(path) > 1:
                raise SpecError(f"search: {path} stands there twice; keep one of them")

    @property
    def is_grid(self) -> bool:
        """Whether every parameter asks for a grid."""
        return all(key.endswith("__grid_search") for key in self.spec.search)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw path → value, or look up what was drawn, in an Optuna trial."""
        return {parameter.path: parameter.suggest(trial) for parameter in self.parameters}

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination as path → what is drawn.

        Raises:
            SpecError: there are infinitely many.
        """
        grids = [parameter.grid for parameter in self.parameters]
        paths = [parameter.path for parameter in self.parameters]
        return [dict(zip(paths, drawn, strict=True)) for drawn in itertools.product(*grids)]

    def apply(self, values: Mapping[str, Any]) -> Spec:
        """Return the complete spec of a trial, in which nothing is searched any more.

        Args:
            values: path → value.

        Raises:
            SpecError: with these values there is no such spec.
        """
        raw = self.spec.to_dict() | {"search": {}}
        for key in [key for key in raw["meta"] if key.startswith("search_") or key == "max_trial"]:
            del raw["meta"][key]
        for path, value in values.items():
            try:
                set_path(raw, path, value)
            except SpecError as error:
                raise SpecError(f"search.{path}: {str(error).partition(': ')[2]}") from None
        return Spec.from_dict(self.spec.name, raw)

    def check(self) -> None:
        """Make the specs at the corners of the space, and some at random, before a trial fails for what they show.

        Where only some combinations make none, a warning tells how many.

        Raises:
            SpecError: with one of the ends there is no spec, whatever the other values are; or with none at random.
        """
        self.refuse_bad(self.corners(), self.apply)
        failed = [(values, error) for values in self.drawn(DRAWN) if (error := _error(self.apply, values))]
        if not failed:
            return
        text = f"with {show_values(failed[0][0])}: {failed[0][1]}"
        if len(failed) == DRAWN:
            raise SpecError(f"search: {text}")
        share = f"{len(failed)} of {DRAWN} combinations drawn at random make no spec; such trials fail"
        warn(f"search: {share}, e.g. {text}")

    def refuse_bad(
        self, combinations: Iterable[Mapping[str, Any]], attempt: Callable[[Mapping[str, Any]], object]
    ) -> None:
        """Try some combinations; one that fails for its values together is let pass, as others will do.

        Args:
            combinations: each path → value.
            attempt: takes one, and raises a SpecError where it fails.

        Raises:
            SpecError: one of them has a value that fails with other values as well.
        """
        good: set[tuple[str, str]] = set()
        failed: list[tuple[Mapping[str, Any], SpecError]] = []
        for values in combinations:
            if error := _error(attempt, values):
                failed.append((values, error))
            else:
                good |= {(path, repr(value)) for path, value in values.items()}
        others = list(self.drawn(OTHERS)) if failed else []
        for values, error in failed:
            for path, value in values.items():
                if (path, repr(value)) in good:
                    continue
                if all(_error(attempt, other | {path: value}) for other in others):
                    raise SpecError(f"search: with {show_values(values)}: {error}")
                good.add((path, repr(value)))

    def drawn(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield combinations at random, the same ones every time."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(count):
            yield self.suggest(study.ask())

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield the combinations of all ends; where they are too many, each end at least once, and some at random."""
        ends = {parameter.path: parameter.ends for parameter in self.parameters}
        if math.prod(map(len, ends.values())) <= MAX_CORNERS:
            yield from (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
            return
        yield from self.each_end()
        draw = random.Random(0)  # noqa: S311 - no secret
        for _ in range(MAX_CORNERS):
            yield {path: draw.choice(values) for path, values in ends.items()}

    def each_end(self) -> Iterator[dict[str, Any]]:
        """Yield few combinations in which every end stands at least once."""
        ends = {parameter.path: parameter.ends for parameter in self.parameters}
        for turn in range(max(map(len, ends.values()))):
            yield {path: values[turn % len(values)] for path, values in ends.items()}


def show_values(values: Mapping[str, Any]) -> str:
    """Write values for a line: `gamma 0.99, lr 0.00123`, with as much of the path as tells them apart."""
    names = short_names(values)
    return ", ".join(f"{names[path]} {show_value(value)}" for path, value in values.items())


def short_names(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Return path → the shortest end of it that says what it is, and that no other path has."""
    names = {}
    for path in paths:
        parts = path.split(".")
        ends = [".".join(parts[-count:]) for count in range(1 + (parts[-1] in VAGUE), len(parts) + 1)]
        others = [f".{other}" for other in paths if other != path]
        names[path] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), path)
    return names


def show_value(value: Any) -> str:
    """Write a value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _error(attempt: Callable[[Mapping[str, Any]], object], values: Mapping[str, Any]) -> SpecError | None:
    try:
        attempt(values)
    except SpecError as error:
        return error
    return None


# --- from key and arguments to a parameter


def _parse(key: str, arguments: Sequence[Any]) -> Parameter:
    path, _, distribution = key.rpartition("__")
    if distribution not in _DISTRIBUTIONS:
        raise SpecError(
            f"search.{key}: {unknown_text(f'unknown distribution {distribution!r}', distribution, _DISTRIBUTIONS)}"
        )
    if path.partition(".")[0] not in SEARCHED or "." not in path:
        raise SpecError(f"search.{key}: the path must begin with {' or '.join(f'{part}.' for part in SEARCHED)}")
    try:
        return replace(_DISTRIBUTIONS[distribution](list(arguments)), path=path)
    except ValueError as error:
        raise SpecError(f"search.{key}: {error}, got {json.dumps(arguments)}") from None


def _choice(arguments: list[Any]) -> Parameter:
    texts = [json.dumps(value, sort_keys=True) for value in arguments]
    if not arguments or len(set(texts)) < len(texts):
        raise ValueError("must be a list of different values")
    return Parameter("", choices=tuple(arguments))


def _span(whole: bool = False, log: bool = False, quantised: bool = False) -> Callable[[list[Any]], Parameter]:
    """Return what reads [low, high], with q and base where the distribution has them."""
    form = f"[low, high{', q' * quantised}]"
    kind = "whole numbers" if whole else "numbers"

    def read(arguments: list[Any]) -> Parameter:
        count = 2 + quantised
        given = arguments[:-1] if log and len(arguments) == count + 1 else arguments
        if len(given) != count or not all(_is_number(value, whole) for value in arguments):
            raise ValueError(f"must be {form}, {kind}")
        low, high, *rest = given
        if not low < high:
            raise ValueError(f"must be {form} with low < high")
        if log and low <= 0:
            raise ValueError(f"must be {form} with low > 0, as it is logarithmic")
        if not quantised:
            return Parameter("", low, high - whole, log=log, whole=whole)
        q = rest[0]
        if q <= 0 or _up(low, q) > _down(high, q):
            raise ValueError(f"must be {form} with a multiple of q in between, and q > 0")
        if log:
            return Parameter("", low, high, log=True, whole=whole, quantum=q)
        return Parameter("", _up(low, q) * q, _down(high, q) * q, step=q, whole=whole, quantum=q)

    return read


def _normal(quantised: bool = False) -> Callable[[list[Any]], Parameter]:
    form = f"[mean, deviation{', q' * quantised}]"

    def read(arguments: list[Any]) -> Parameter:
        given = arguments or ([] if quantised else [0.0, 1.0])
        if len(given) != 2 + quantised or not all(_is_number(value) for value in given):
            raise ValueError(f"must be {form}, numbers")
        mean, deviation, *rest = given
        if not all(value > 0 for value in (deviation, *rest)):
            raise ValueError(f"must be {form}, all but the mean greater than 0")
        return Parameter("", TAIL, 1 - TAIL, normal=NormalDist(mean, deviation), quantum=rest[0] if rest else None)

    return read


_DISTRIBUTIONS: dict[str, Callable[[list[Any]], Parameter]] = {
    "choice": _choice,
    "grid_search": _choice,
    "uniform": _span(),
    "loguniform": _span(log=True),
    "quniform": _span(quantised=True),
    "qloguniform": _span(log=True, quantised=True),
    "randint": _span(whole=True),
    "lograndint": _span(whole=True, log=True),
    "qrandint": _span(whole=True, quantised=True),
    "qlograndint": _span(whole=True, log=True, quantised=True),
    "randn": _normal(),
    "qrandn": _normal(quantised=True),
}


def _is_number(value: Any, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return not whole or float(value).is_integer()


def _up(value: float, q: float) -> int:
    # 0.3 / 0.1 is 2.9999999999999996
    return math.ceil(value / q - 1e-9)


def _down(value: float, q: float) -> int:
    return math.floor(value / q + 1e-9)
