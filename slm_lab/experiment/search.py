"""A search: trials of a spec with other values, chosen by Optuna, each with all its seeds.

The truth is on disk: an Optuna study in a journal, `{spec}_study.log` in the run folder, and beside it the files that
the trials leave, as any trial does; trial n of the study is trial n of the folder. A search that was killed goes on
from there: trials that were at work are taken up with their values, and their sessions from their checkpoints.

Ray only runs sessions (`slm_lab.experiment.pool`): plain tasks, which it runs again when a worker or a machine is lost.
Ray Tune is not used: it keeps a second truth about the trials, and knows no trial of several sessions.

Trials are stopped early at judgements: each session runs up to a frame and saves; when all seeds are there, the trial
is judged by their mean, and goes on or is pruned. So a pruned trial keeps its rows and metrics, and its seeds need not
run at the same time.
"""

import itertools
import json
import math
import random
import re
import secrets
import shutil
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from slm_lab.experiment import graph, pbt
from slm_lab.experiment.analysis import analyze_sessions
from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.paths import RunPaths, find_run, new_run, runs_in
from slm_lab.experiment.pool import Outcome, Pool, RayPool, SerialPool, Stretch
from slm_lab.experiment.progress import duration
from slm_lab.experiment.search_results import SCORE, Row, by_strength, draw_results, ranked, read_table, write_table
from slm_lab.experiment.signals import StopRequest, stop_on_signals
from slm_lab.experiment.trial import Interrupted, TrialError, at_work, said_before, write_derived
from slm_lab.lib.files import cut_partial_line, read_rows, write_json
from slm_lab.lib.logger import setup_logger
from slm_lab.lib.rng import derive_seed
from slm_lab.lib.shell import command_line
from slm_lab.lib.table import counted
from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.schema import SearchResources
from slm_lab.spec.search_space import SearchSpace, show_values

if TYPE_CHECKING:
    import optuna

KEEP = 3
MAY_CHANGE = ("max_trial", "search_resources")
"""Keys of `meta` that a search may go on with otherwise than it began."""
STARTUP = 10  # trials at random before TPE has something to go by; a third of the search where that is less
BYTES_PER_ROW = 2 * 200  # of a session, in two files
MARGIN = 0.05  # of the disk, that stays free


@dataclass
class _Trial:
    """A trial at work.

    Attributes:
        number: of the study, and of the run folder.
        spec: complete.
        paths: of the trial.
        values: what was chosen.
        handle: Optuna's.
        judgements: frames at which it will be judged, then max_frame.
        waiting: sessions that are still to run to the first of these.
        running: sessions at work.
        failure: what went wrong.
        parked: the frame at which it waits for the rest of its population.
        note: whose checkpoints it has taken over, and when.
    """

    number: int
    spec: Spec
    paths: RunPaths
    values: dict[str, Any]
    handle: "optuna.trial.Trial"
    judgements: list[int]
    waiting: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    failure: str | None = None
    parked: int | None = None
    note: str = ""

    @property
    def stop_file(self) -> Path:
        """Its sessions stop when this is there."""
        return self.paths.log_dir / f".{self.paths.trial_prefix}.stop"


class Search:
    """Searches the space of a spec.

    Args:
        spec: with a `search` section.
        data_dir: where the folder of the run is made.
        resume: a search to go on with: its folder or a file in it.
        options: how to run.
        serial: one session after the other in this process, without Ray.
        keep: of how many trials the models are kept, the best; -1: of all.
        address: of a Ray cluster; None: this machine.
    """

    def __init__(
        self,
        spec: Spec,
        data_dir: str | Path = "data",
        resume: str | Path | None = None,
        options: RunOptions | None = None,
        *,
        serial: bool = False,
        keep: int = KEEP,
        address: str | None = None,
    ) -> None:
        self.data_dir, self.options = Path(data_dir), options or RunOptions()
        self.serial, self.keep, self.address = serial, keep, address
        self.resume = find_run(resume) if resume is not None else None
        with said_before():
            self.spec = spec if spec.meta.seed is not None else spec.with_meta(seed=secrets.randbelow(2**31))
        self.meta = self.spec.meta
        self.space = SearchSpace(self.spec)
        self.algorithm = spec.meta.search_algorithm or ("grid" if self.space.is_grid else "tpe")
        self.grid = self.space.grid() if self.algorithm == "grid" else []
        self.count = self._count()

    def _count(self) -> int:
        count = self.meta.max_trial
        if self.grid:
            return min(count or len(self.grid), len(self.grid))
        if count is None:
            raise SpecError("meta.max_trial: missing; say how many trials the search has, e.g. -s meta.max_trial=16")
        return count

    def _check(self) -> None:
        """Refuse what could only fail later."""
        meta, paths = self.meta, [parameter.path for parameter in self.space.parameters]
        if meta.distributed:
            raise SpecError(f'meta.distributed: "{meta.distributed}" cannot be searched; set it to false')
        if self.algorithm == "nsga" and "env.max_frame" not in paths:
            raise SpecError(
                "meta.search_algorithm: nsga weighs the score against env.max_frame, which is not searched; add for "
                'example "env.max_frame__choice": [10000, 20000], or use tpe'
            )
        if self.algorithm == "pbt" and self.count < pbt.QUARTER:
            raise SpecError(f"meta.max_trial: {self.count} is no population for pbt; give {pbt.QUARTER} or more")
        if self.algorithm == "pbt" and "env.max_frame" in paths:
            raise SpecError("search.env.max_frame: a population goes to the same frame; do not search it, or use tpe")
        if self.algorithm == "nsga" and meta.search_scheduler:
            raise SpecError("meta.search_scheduler: nsga stops nothing early; remove it, or use tpe")
        if self.algorithm == "cma-es" and not any(parameter.choices == () for parameter in self.space.parameters):
            raise SpecError("meta.search_algorithm: cma-es needs a number to search, and all is choice; use tpe")
        self.space.check()

    # --- the run

    def run(self) -> list[Row]:
        """Search until there are `max_trial` trials.

        Returns:
            the trials, the strongest first.

        Raises:
            SpecError: the spec, or what is asked for, does not fit.
            TrialError: no trial has come to a score.
            Interrupted: Ctrl-C or SIGTERM, after a clean save.
        """
        self._check()
        if self.resume is not None:
            self._refuse_another_search()
        self.paths = self.resume or new_run(self.data_dir, self.spec.name)
        with at_work(self, ".search.lock"):
            return self._run()

    def _run(self) -> list[Row]:
        logs = [self.paths.run_log]
        setup_logger(self.options.log_level, *logs)
        try:
            with stop_on_signals() as stop:
                if not self._is_done():
                    self._work(stop, logs)
            rows = self._results()
            if stop.requested:
                raise Interrupted(f"stopped and saved; go on with: {self.resume_command()}")
            if not any(row.state == "COMPLETE" for row in rows):
                first = next((row.reason for row in rows if row.reason), "all were pruned")
                raise TrialError(f"no trial has come to a score; the first: {first}")
            return rows
        finally:
            setup_logger(self.options.log_level)

    def _work(self, stop: StopRequest, logs: list[Path]) -> None:
        pool = self._pool(stop, logs)
        try:
            self._announce(pool)
            write_json(self.paths.spec, {self.spec.name: self.spec.to_dict()})
            self.study = self._open_study()
            self._search(pool, stop)
        finally:
            pool.close()

    def _is_done(self) -> bool:
        """Tell whether a search that is to go on has come to its end already, and say so."""
        if self.resume is None:
            return False
        self.study = self._open_study()
        ended = self._finished()
        if ended < self.count or any(trial.state.name == "RUNNING" for trial in self.study.get_trials(deepcopy=False)):
            return False
        logger.info(
            "nothing is left to do: {} have ended, of {} that were asked for", counted(ended, "trial"), self.count
        )
        return True

    def resume_command(self) -> str:
        """Return the command that goes on with this search."""
        words = ["slm-lab", self.paths.spec, self.spec.name, f"search@{self.paths.folder}"]
        flags = ["--serial"] if self.serial else []
        flags += [f"--keep={self.keep}"] if self.keep != KEEP else []
        flags += [f"--ray-address={self.address}"] if self.address is not None else []
        return command_line(*words, *flags)

    def _pool(self, stop: StopRequest, logs: list[Path]) -> Pool:
        resources, net = self.meta.search_resources, self.spec.agent.net
        without = net is None or net.gpu is False
        if self.serial:
            if resources != SearchResources():
                logger.warning("meta.search_resources: counts for nothing with --serial, where sessions run one by one")
            return SerialPool(stop, logs)
        if without and resources.gpu:
            why = "there is no net" if net is None else "agent.net.gpu is false"
            logger.warning("meta.search_resources: gpu {:g} counts for nothing, as {}", resources.gpu, why)
        logger.info("Ray begins, and its workers import what sessions need")
        return RayPool(resources.cpu, 0.0 if without else resources.gpu, self.address, modules_of(self.spec))

    def _refuse_another_search(self) -> None:
        """Raise if a search that goes on is to be another one."""
        paths = self.resume
        if paths is None or not paths.study.exists():
            raise SpecError(f"{paths and paths.folder}: not a search; begin one with MODE search")
        with said_before():
            begun = load_spec(paths.spec, paths.spec_name)
        before, now = (_comparable(spec) for spec in (begun, self.spec))
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) != now.get(path):
                raise SpecError(f"{path}: a search that goes on keeps its spec; leave it, or begin a new search")
        members = begun.meta.max_trial or 0
        if self.algorithm == "pbt" and self.count != members > len(read_table(paths)):
            raise SpecError(
                f"meta.max_trial: a population keeps its {members} members until all have come to the end; leave it"
            )

    # --- the study

    def _open_study(self) -> "optuna.Study":
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = self.paths.study
        if file.exists():
            cut_partial_line(file)
        backend: BaseJournalBackend = JournalFileBackend(str(file), lock_obj=_no_lock())
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name=self.spec.name,
            directions=["maximize", "minimize"] if self.algorithm == "nsga" else ["maximize"],
            load_if_exists=True,
            sampler=self._sampler(),
            pruner=self._pruner(),
        )

    def _sampler(self) -> "optuna.samplers.BaseSampler":
        from optuna import samplers

        # what was drawn at random before a search went on is not drawn again
        begun = len(read_table(self.paths)) if self.resume else 0
        seed = derive_seed(self.spec.meta.seed or 0, "search", begun) % 2**32
        match self.algorithm:
            case "tpe":
                startup = min(STARTUP, max(1, self.count // 3))
                return samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
            case "cma-es":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "nsga":
                return samplers.NSGAIISampler(seed=seed, population_size=max(2, min(50, self.count // 4)))
        return samplers.RandomSampler(seed=seed)

    def _pruner(self) -> "optuna.pruners.BasePruner":
        from optuna import pruners

        scheduler = self.meta.search_scheduler
        if scheduler is None or self.algorithm == "pbt":
            return pruners.NopPruner()
        if scheduler.name == "median":
            return pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
        return pruners.SuccessiveHalvingPruner(
            min_resource=self._grace(self.spec), reduction_factor=scheduler.reduction_factor
        )

    def _grace(self, spec: Spec) -> int:
        scheduler = self.meta.search_scheduler
        grace = None if scheduler is None else scheduler.grace_period
        return grace or max(1, spec.env.max_frame // 10)

    def _judgements(self, spec: Spec) -> list[int]:
        """Return the frames at which a trial is judged, and its end."""
        scheduler, end = self.meta.search_scheduler, spec.env.max_frame
        grace = self._grace(spec)
        if self.algorithm == "pbt":
            return [*range(grace, end, grace), end]
        if scheduler is None:
            return [end]
        if scheduler.name == "median":
            return [*range(grace, end, grace), end]
        frames = (grace * scheduler.reduction_factor**rung for rung in itertools.count())
        return [*itertools.takewhile(lambda frame: frame < end, frames), end]

    # --- the search itself

    def _search(self, pool: Pool, stop: StopRequest) -> None:
        self._started, self._done_before = time.monotonic(), self._finished()
        self._slots, self._threads = pool.slots, pool.threads
        trials = self._take_up()
        self.stop_file.unlink(missing_ok=True)
        while True:
            while not stop.requested and sum(len(trial.running) for trial in trials) < pool.slots:
                stretch = self._next_stretch(trials, pool.threads)
                if stretch is None:
                    break
                pool.submit(stretch)
            if not any(trial.running for trial in trials):
                if stop.requested or pool.slots:
                    break
                time.sleep(1)  # a cluster that has lost all its machines may get others
                continue
            if stop.requested:
                self.stop_file.touch()
            for stretch, outcome in pool.wait():
                trial = next(trial for trial in trials if trial.number == stretch.paths.trial)
                self._session_ended(trial, stretch.paths.session or 0, outcome)
            trials = [trial for trial in trials if self._still_at_work(trial)]
            self._judge_population(trials)
        self.stop_file.unlink(missing_ok=True)

    @property
    def stop_file(self) -> Path:
        """All sessions stop when this is there."""
        return self.paths.log_dir / ".search.stop"

    def _next_stretch(self, trials: list[_Trial], threads: int) -> Stretch | None:
        """Take a session that waits, of the oldest trial first, or else begin a trial."""
        together = self.algorithm == "pbt"
        while together or not any(trial.waiting for trial in trials):
            if len(self.study.get_trials(deepcopy=False)) - self._enqueued() >= self.count:
                break
            trial = self._begin()
            if trial is not None:
                trials.append(trial)
        waiting = [trial for trial in trials if trial.waiting]
        if not waiting:
            return None
        trial = min(waiting, key=lambda trial: (together and trial.judgements[0], trial.number))
        index = trial.waiting.pop(0)
        trial.running.add(index)
        paths = replace(trial.paths.for_session(index), folder=trial.paths.folder.absolute())
        stops = (self.stop_file.absolute(), trial.stop_file.absolute())
        return Stretch(trial.spec, paths, trial.judgements[0], threads, self.options, stops)

    def _enqueued(self) -> int:
        """Return how many trials of a grid are written down but not begun: one, after a kill at that moment."""
        return sum(trial.state.name == "WAITING" for trial in self.study.get_trials(deepcopy=False))

    def _begin(self) -> _Trial | None:
        """Begin a new trial; None if what was drawn makes no spec."""
        if self.grid and not self._enqueued():
            self.study.enqueue_trial(self.grid[len(self.study.get_trials(deepcopy=False))])
        return self._equip(self.study.ask())

    def _take_up(self) -> list[_Trial]:
        """Go on with the trials that were at work when the search was interrupted."""
        from optuna.trial import Trial

        unfinished = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]
        judged = [set(trial.intermediate_values) for trial in unfinished]
        if self.algorithm == "pbt":  # which are judged together, or again
            judged = [set.intersection(*judged)] * len(judged) if judged else []
        handles = [Trial(self.study, frozen._trial_id) for frozen in unfinished]
        trials = [self._equip(handle, frames) for handle, frames in zip(handles, judged, strict=True)]
        return [trial for trial in trials if trial is not None]

    def _equip(self, handle: "optuna.trial.Trial", judged: Container[int] | None = None) -> _Trial | None:
        values = self.space.suggest(handle) | handle.user_attrs.get("values", {})
        paths = self.paths.for_trial(handle.number)
        try:
            spec = self.space.apply(values)
        except SpecError as error:
            self._tell(_Trial(handle.number, self.spec, paths, values, handle, []), "FAIL", reason=str(error))
            return None
        taken_up, judged = judged is not None, judged or ()
        judgements = [frame for frame in self._judgements(spec) if frame not in judged or frame == spec.env.max_frame]
        sessions = list(range(spec.meta.max_session))
        self._write_specs(paths, spec)
        trial = _Trial(handle.number, spec, paths, values, handle, judgements, sessions)
        trial.note = handle.user_attrs.get("note", "")
        trial.stop_file.unlink(missing_ok=True)
        logger.info("trial {} {}: {}", trial.number, "goes on" if taken_up else "begins", show_values(values))
        return trial

    def _session_ended(self, trial: _Trial, index: int, outcome: Outcome) -> None:
        trial.running.discard(index)
        if outcome.status == "blind":
            raise SpecError(outcome.reason)
        if outcome.status == "failed" and trial.failure is None:
            trial.failure = f"session {index}: {' '.join(outcome.reason.split())}"
            trial.waiting.clear()
            trial.stop_file.touch()  # a trial without one of its seeds is none, so the others need not go on
        if outcome.status == "stopped" and trial.failure is None:
            trial.waiting.append(index)  # for the next time

    def _still_at_work(self, trial: _Trial) -> bool:
        """Judge or end a trial whose sessions have all got to where they were to go; tell whether it goes on."""
        if trial.running:
            return True
        if trial.failure is not None:
            self._end(trial, "FAIL", trial.failure)
            return False
        if trial.waiting or trial.parked is not None:
            return True
        frame = trial.judgements.pop(0)
        score = self._score(trial)
        if not trial.judgements:
            self._end(trial)
            return False
        if self.algorithm == "pbt":
            trial.parked = frame
            return True
        if math.isfinite(score):  # else nothing is known yet
            trial.handle.report(score, frame)
            if trial.handle.should_prune():
                self._end(trial, "PRUNED", f"at frame {frame}, with a {SCORE} of {score:.4g}")
                return False
        trial.waiting = list(range(trial.spec.meta.max_session))
        return True

    def _judge_population(self, trials: list[_Trial]) -> None:
        """Judge the members of a population when all have got to the same frame; nobody is at work then."""
        if not trials or any(trial.parked is None for trial in trials):
            return
        frame = trials[0].parked or 0
        scores = {trial.number: self._score(trial) for trial in trials}
        draw = random.Random(derive_seed(self.spec.meta.seed or 0, "pbt", frame))  # noqa: S311 - no secret
        taken = pbt.parents(scores, draw)
        members = {trial.number: trial for trial in trials}
        for child, parent in taken.items():
            self._take_over(members[child], members[parent], frame, draw)
        for trial in trials:  # a kill before this is written repeats the judgement, with the same end
            trial.handle.report(scores[trial.number], frame)
            trial.parked, trial.waiting = None, list(range(trial.spec.meta.max_session))

    def _take_over(self, child: _Trial, parent: _Trial, frame: int, draw: random.Random) -> None:
        values = pbt.explore(self.space.parameters, parent.values, draw)
        try:
            spec = self.space.apply(values)
        except SpecError:  # too far
            values, spec = parent.values, parent.spec
        pbt.take_over(parent.paths, child.paths, spec.meta.max_session)
        child.values, child.spec = values, spec
        child.note = f"took over trial {parent.number} at frame {frame}"
        self._write_specs(child.paths, spec)
        child.handle.set_user_attr("values", values)
        child.handle.set_user_attr("note", child.note)
        logger.info("trial {} {}: {}", child.number, child.note, show_values(values))

    def _write_specs(self, paths: RunPaths, spec: Spec) -> None:
        sessions = [paths.for_session(index).session_spec for index in range(spec.meta.max_session)]
        for file in (paths.trial_spec, *sessions):
            write_json(file, {spec.name: spec.to_dict()})
        write_derived(paths, spec, "search", min(spec.meta.max_session, self._slots), self._threads)

    def _score(self, trial: _Trial) -> float:
        """Return the mean over the seeds of what they have come to; NaN while one has no return."""
        kind = "eval" if trial.spec.meta.rigorous_eval else "train"
        sessions = map(trial.paths.for_session, range(trial.spec.meta.max_session))
        return float(np.mean([_newest(paths, kind, SCORE) for paths in sessions]))

    def _end(self, trial: _Trial, state: str = "COMPLETE", reason: str = "") -> None:
        """Write down what a trial has come to; one that has failed has no number, whatever its rows say.

        Its graphs are drawn at the end, if it is one of the best.
        """
        reason = reason or trial.note
        metrics: dict[str, float] = {}
        if state != "FAIL":
            sessions = range(trial.spec.meta.max_session)
            found = analyze_sessions(trial.paths, trial.spec, sessions, draw=False)
            if all(math.isfinite(session[SCORE]) for session in found["sessions"].values()):
                metrics = found["scalar"]
            else:
                state, reason = "FAIL", f"no {SCORE}: not every session has finished an episode"
        trial.stop_file.unlink(missing_ok=True)
        self._tell(trial, state, metrics, reason)

    def _tell(self, trial: _Trial, state: str, metrics: Mapping[str, float] | None = None, reason: str = "") -> None:
        """Write down what a trial came to: first the table, then the study, after which it counts as finished."""
        from optuna.trial import TrialState

        metrics = dict(metrics or {})
        row = Row(trial.number, state, trial.values, metrics, reason)
        others = (other for other in read_table(self.paths) if other.trial != row.trial)
        rows = sorted([*others, row], key=lambda one: one.trial)
        write_table(self.paths, rows)
        if reason:
            trial.handle.set_user_attr("reason", reason)
        score = metrics.get(SCORE, math.nan)
        values = None if state != "COMPLETE" else [score, trial.spec.env.max_frame][: len(self.study.directions)]
        self.study.tell(trial.handle, values, TrialState[state])
        self._delete_models(rows)
        self._log_trial(row, ranked(rows))

    def _delete_models(self, rows: list[Row]) -> None:
        """Delete the models of trials that have ended and are not among the best."""
        if self.keep < 0:
            return
        best = [row.trial for row in ranked(rows)[: self.keep]]
        for row in rows:
            if row.trial not in best:
                prefix = self.paths.for_trial(row.trial).trial_prefix
                for folder in [path for path in self.paths.model_dir.iterdir() if path.name.startswith(f"{prefix}_s")]:
                    shutil.rmtree(folder, ignore_errors=True)

    def _finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    # --- what is said

    def _announce(self, pool: Pool) -> None:
        """Say what the search will take; refuse what the disk cannot hold.

        Raises:
            SpecError: the disk is too small.
        """
        sessions, frames = self.meta.max_session, self.spec.env.max_frame
        size = pool.measure(self.spec)
        checkpoint = 3 * 4 * sum(size.parameters.values())  # weights and two moments, as a rule
        per_session = 2 * (checkpoint + size.memory_bytes) + checkpoint  # two to go on from, and the best
        kept = self.count if self.keep < 0 else min(self.count, self.keep)
        models = (min(pool.slots, self.count * sessions) + kept * sessions) * per_session
        rows = self.count * sessions * (frames / self.meta.log_frequency) * BYTES_PER_ROW
        disk, usage = models + rows, shutil.disk_usage(self.paths.folder)
        product = f"{counted(self.count, 'trial')} × {counted(sessions, 'session')} × {frames:,} frames"
        total = f"{self.count * sessions * frames:,} frames"
        lines = [
            f"search: {product} = {total}, by {self.algorithm}{self._scheduler_text()}",
            f"  {pool.describe()}",
            f"  disk: about {disk / 1e6:,.0f} MB, of {usage.free / 1e6:,.0f} MB free",
            f"  time: {self._time_text(pool)}",
        ]
        logger.info("{}", "\n".join(lines))
        if disk > usage.free - MARGIN * usage.total:
            raise SpecError(f"--data {self.data_dir}: {lines[2].strip()}; free some, or keep fewer models (--keep)")

    def _scheduler_text(self) -> str:
        scheduler = self.meta.search_scheduler
        if scheduler is None:
            return ""
        frames = ", ".join(f"{frame:,}" for frame in self._judgements(self.spec)[:-1])
        return f"; {scheduler.name} stops trials early, at frames {frames or 'none'}"

    def _time_text(self, pool: Pool) -> str:
        done = [row for row in read_table(self.paths) if row.state == "COMPLETE"] if self.resume else []
        first = (self.paths.for_trial(row.trial).for_session(0) for row in done)
        seconds = [seconds for paths in first if (seconds := _newest(paths, "train", "wall_t")) > 0]
        if not seconds:
            return "known after the first trial"
        left = max(0, self.count - len(read_table(self.paths))) * self.meta.max_session * float(np.mean(seconds))
        return f"about {duration(left / pool.slots)} left"

    def _log_trial(self, row: Row, best: list[Row]) -> None:
        done = self._finished()
        words = {
            "COMPLETE": f"{SCORE} {row.score:.4g}",
            "PRUNED": f"pruned {row.reason}",
            "FAIL": f"failed: {row.reason}",
        }
        fresh = done - self._done_before
        left = (time.monotonic() - self._started) / fresh * (self.count - done) if fresh else math.nan
        logger.info(
            "trial {}: {} ({}) | {}/{} trials{}{}",
            row.trial,
            words[row.state],
            show_values(row.params),
            done,
            self.count,
            f" | best: trial {best[0].trial} with {best[0].score:.4g}" if best else "",
            f" | about {duration(left)} left" if done < self.count else "",
        )

    # --- results

    def _results(self) -> list[Row]:
        """Draw the best trials and the search as a whole; also where it was stopped."""
        rows = read_table(self.paths)
        count = len(rows) if self.keep < 0 else max(self.keep, 1)
        for row in ranked(rows)[:count]:
            paths = self.paths.for_trial(row.trial)
            if not paths.trial_graph_top("mean_returns_vs_frames").exists():
                spec = load_spec(paths.trial_spec, paths.spec_name)
                analyze_sessions(paths, spec, range(spec.meta.max_session))
        draw_results(self.paths, self.study)
        graph.draw_search_pngs(self.paths)
        return by_strength(rows)


def latest_search(data_dir: str | Path, spec_name: str) -> RunPaths | None:
    """Return the newest search of exactly this spec name; None where there is none."""
    runs = [paths for paths in runs_in(data_dir) if paths.spec_name == spec_name and paths.study.exists()]
    return runs[-1] if runs else None


def interrupted_search(data_dir: str | Path, spec: Spec) -> RunPaths | None:
    """Return the newest search if it is of this very spec and has not come to its end; None otherwise."""
    paths = latest_search(data_dir, spec.name)
    if paths is None:
        return None
    with said_before():
        begun = load_spec(paths.spec, paths.spec_name)
        if spec.meta.seed is None:  # it was drawn then
            spec = spec.with_meta(seed=begun.meta.seed)
    if begun.hash != spec.hash or len(read_table(paths)) >= Search(begun).count:
        return None
    logger.info("going on with {}, which has not come to its end", paths.folder)
    return paths


def modules_of(spec: Spec) -> set[str]:
    """Return the modules that a spec names, as in "my_package.module:Name"."""
    texts = json.dumps([spec.to_dict()[part] for part in ("agent", "env", "search")])
    return set(re.findall(r'"([A-Za-z_][\w.]*):[A-Za-z_]\w*', texts))


def _newest(paths: RunPaths, kind: str, column: str) -> float:
    """Return what the last row of a session says; NaN where there is none."""
    file = paths.session_df(kind)
    values = read_rows(file).get(column, np.empty(0)) if file.exists() else np.empty(0)
    return float(values[-1]) if values.size else math.nan


def _comparable(spec: Spec) -> dict[str, Any]:
    """Return path → value of what a search must keep."""
    raw = spec.to_dict()
    for key in MAY_CHANGE:
        raw["meta"].pop(key)
    return dict(_leaves(raw))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from _leaves(child, f"{path}.{key}" if path else key)
    else:
        yield path, node


def _no_lock() -> Any:
    """Return a lock of the journal that does nothing: the run is locked already, and a kill leaves nothing behind."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class NoLock(BaseJournalFileLock):
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    return NoLock()
