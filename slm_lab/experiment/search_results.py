"""What a search has come to: its table, its graphs, its best trial."""

import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loguru import logger

from slm_lab.experiment import graph
from slm_lab.experiment.analysis import TRIAL_SCALARS, trial_means
from slm_lab.experiment.paths import RunPaths, read_spec
from slm_lab.lib.files import atomic_write, read_json, write_json
from slm_lab.lib.rng import derive_seed
from slm_lab.lib.shell import command_line
from slm_lab.lib.table import counted, csv_table, text_table
from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.search_space import short_names, show_value, show_values

if TYPE_CHECKING:
    import optuna

SCORE = "total_reward_ma"
"""What trials are ranked by: the mean over the seeds."""
STRENGTH = "strength"
SEEDS = 4  # at least, of the best trial when it is trained
FEW = 4  # scores that the importance of parameters can be told from
SHOWN = 10  # trials in the table at the end
COMPLETE, PRUNED, FAILED = "COMPLETE", "PRUNED", "FAIL"


@dataclass(frozen=True)
class Row:
    """A trial that has ended.

    Attributes:
        trial: its index.
        state: COMPLETE, PRUNED or FAIL.
        params: path → value.
        metrics: as of any trial; none where it failed.
        reason: why it was pruned, or failed.
    """

    trial: int
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def score(self) -> float:
        """What it is ranked by; NaN where it has none."""
        return self.metrics.get(SCORE, math.nan)


def read_table(paths: RunPaths) -> list[Row]:
    """Read the trials of a search that have ended, in the order of their index."""
    if not paths.trial_data_dict.exists():
        return []
    rows = []
    for trial, content in read_json(paths.trial_data_dict).items():
        metrics = {name: math.nan if value is None else value for name, value in content["metrics"].items()}
        rows.append(Row(int(trial), content["state"], content["params"], metrics, content["reason"]))
    return rows


def write_table(paths: RunPaths, rows: list[Row]) -> None:
    """Write the trials of a search: all that is known as JSON, and a table, the strongest first, as CSV."""
    rows = sorted(rows, key=lambda row: row.trial)
    content = {
        row.trial: {"state": row.state, "params": row.params, "metrics": row.metrics, "reason": row.reason}
        for row in rows
    }
    write_json(paths.trial_data_dict, content)
    params = sorted({path for row in rows for path in row.params})
    head = ["trial", *params, *TRIAL_SCALARS, "state", "reason"]
    table = csv_table(head, (_cells(row, params) for row in by_strength(rows)))
    for file in (paths.experiment_df, paths.experiment_df_top):
        atomic_write(file, table)


def by_strength(rows: list[Row]) -> list[Row]:
    """Return the trials with the strongest first, and those without a number last."""
    return sorted(rows, key=lambda row: -_finite(row.metrics.get(STRENGTH, math.nan), -math.inf))


def ranked(rows: list[Row]) -> list[Row]:
    """Return the trials that have come to a score, the best first."""
    return sorted((row for row in rows if row.state == COMPLETE), key=lambda row: -row.score)


def best_trial(paths: RunPaths) -> Row:
    """Return the best trial of a search.

    Raises:
        SpecError: it is no search, or no trial has come to a score.
    """
    if not paths.study.exists():
        raise SpecError(f"{paths.folder}: not a search; name the folder of one")
    best = ranked(read_table(paths))
    if not best:
        raise SpecError(f"{paths.folder}: no trial has come to a score yet")
    return best[0]


def best_spec(paths: RunPaths, sets: Sequence[str] = ()) -> Spec:
    """Return the spec of the best trial, with more and other seeds: what it was chosen by is no measure of it.

    Args:
        paths: of the search.
        sets: "path=value" texts that change it.
    """
    trial = paths.for_trial(best_trial(paths).trial)
    found = load_spec(trial.trial_spec, paths.spec_name)
    sessions = max(SEEDS, 2 * found.meta.max_session)
    seed = derive_seed(found.meta.seed or 0, "best") % 2**31
    spec = load_spec(trial.trial_spec, paths.spec_name, [f"meta.max_session={sessions}", f"meta.seed={seed}", *sets])
    return Spec.from_dict(f"{spec.name}_best", spec.to_dict())


def best_session(paths: RunPaths) -> RunPaths:
    """Return the names of the best session of the best trial."""
    trial = paths.for_trial(best_trial(paths).trial)
    sessions = read_json(trial.trial_metrics)["sessions"]
    return trial.for_session(int(max(sessions, key=lambda index: sessions[index][SCORE])))


def print_search(paths: RunPaths, resume_command: str) -> None:
    """Print the end of a search on stdout, from the files it left, and how to go on with it."""
    print("\n".join(_search_lines(paths, resume_command)))  # noqa: T201 - the result of the command


def print_best(paths: RunPaths) -> None:
    """Print the best trial of a search: its spec on stdout, which may be a file, and what it came to on stderr."""
    row = best_trial(paths)
    trial = paths.for_trial(row.trial)
    print(trial.trial_spec.read_text(), end="")  # noqa: T201
    print("\n".join(_best_lines(paths, row)), file=sys.stderr)  # noqa: T201


def _search_lines(paths: RunPaths, resume_command: str) -> Iterator[str]:
    rows = read_table(paths)
    names = short_names(sorted({path for row in rows for path in row.params}))
    head = ["trial", *names.values(), SCORE, STRENGTH, "state"]
    best = ranked(rows)
    yield ""
    shown = [*best[:SHOWN], *[row for row in rows if row.state == FAILED][:SHOWN]]
    yield text_table(head, ([str(row.trial), *_shown(row, names), row.state] for row in shown)).rstrip()
    counts = {state: sum(row.state == state for row in rows) for state in (COMPLETE, PRUNED, FAILED)}
    ended = f"{counts[COMPLETE]} complete, {counts[PRUNED]} pruned, {counts[FAILED]} failed"
    yield f"{counted(len(rows), 'trial')}: {ended}"
    yield ""
    yield from _best_lines(paths, best[0])
    yield f"table      {paths.experiment_df_top}"
    yield from (
        f"graph      {page}" for page in sorted(paths.graph_dir.glob(f"{paths.spec_name}_experiment_graph*.html"))
    )
    yield from (f"graph      {page}" for page in sorted(paths.graph_dir.glob(f"{paths.spec_name}_multi_trial*.html")))
    yield ""
    yield "next"
    yield "  # train the best with more seeds"
    yield f"  {command_line('slm-lab', 'best', paths.folder, '--train')}"
    yield "  # search on"
    yield f"  {resume_command} -s meta.max_trial={2 * len(rows)}"


def _best_lines(paths: RunPaths, row: Row) -> Iterator[str]:
    metrics = read_json(paths.for_trial(row.trial).trial_metrics)["over_seeds"][SCORE]
    seeds = ", ".join(f"{value:.2f}" for value in metrics["values"])
    yield f"best       trial {row.trial}: {show_values(row.params)}"
    yield f"           {SCORE} {row.score:.2f} (seeds: {seeds})"
    yield f"           {paths.for_trial(row.trial).trial_spec}"


def _shown(row: Row, names: Mapping[str, str]) -> list[str]:
    params = [show_value(row.params[path]) if path in row.params else "" for path in names]
    numbers = [row.metrics.get(name, math.nan) for name in (SCORE, STRENGTH)]
    return [*params, *(f"{number:.2f}" if math.isfinite(number) else "–" for number in numbers)]


def draw_results(paths: RunPaths, study: "optuna.Study | None" = None) -> None:
    """Draw a search as a whole. A graph that cannot be drawn is named in a warning.

    Args:
        paths: of the search.
        study: tells the importance of the parameters; None leaves this graph as it is.
    """
    from slm_lab.experiment import search_graph

    rows = read_table(paths)
    params = sorted({path for row in rows for path in row.params})
    names = short_names(params)
    title = f"{paths.spec_name} · {counted(len(rows), 'trial')}"
    scored = [row for row in rows if math.isfinite(row.metrics.get(STRENGTH, math.nan))]
    if not scored:
        return
    try:
        search_graph.draw_experiment(paths, title, scored, names)
        search_graph.draw_parallel(paths, title, scored, names)
        if study is not None and (importance := importances(study)):
            search_graph.draw_importance(
                paths, title, {names.get(path, path): share for path, share in importance.items()}
            )
        _draw_curves(paths, scored)
    except Exception as error:  # the numbers are safe, and no picture is worth a search
        logger.opt(exception=error).warning("a graph of the search could not be drawn")


def importances(study: "optuna.Study") -> dict[str, float]:
    """Return path → share of what decides the score, by PED-ANOVA (arXiv 2304.10255); empty if unknown."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len({trial.values[0] for trial in study.get_trials(deepcopy=False) if trial.values}) < FEW:
        return {}
    # towards low values, where it is not told the direction
    target = None if len(study.directions) == 1 else lambda trial: -trial.values[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=target)
    except (ValueError, RuntimeError) as error:  # e.g. a parameter has the same value in all of the best
        logger.debug("no importance of the parameters: {}", error)
        return {}


def _draw_curves(paths: RunPaths, rows: list[Row]) -> None:
    """Draw the curves of all trials together."""
    curves = {}
    for row in rows:
        trial = paths.for_trial(row.trial)
        means = trial_means(trial, read_spec(trial.trial_spec), warn=False)
        if means["mean_returns"][0].size:
            curves[f"trial {row.trial}"] = means
    graph.draw_search(paths, curves)


def _cells(row: Row, params: list[str]) -> list[Any]:
    values = [row.params.get(path, "") for path in params]
    shown = [json.dumps(value) if isinstance(value, list | dict | bool) else value for value in values]
    metrics = [_finite(row.metrics.get(name, math.nan), "") for name in TRIAL_SCALARS]
    return [row.trial, *shown, *metrics, row.state, row.reason]


def _finite(value: float, otherwise: Any) -> Any:
    return value if math.isfinite(value) else otherwise
