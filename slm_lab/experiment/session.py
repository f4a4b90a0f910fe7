"""A session: one agent, one seed, from the first frame to the last."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from loguru import logger
from threadpoolctl import threadpool_limits

from slm_lab.agent import Agent, DivergenceError
from slm_lab.env import make_env
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.experiment.evaluate import evaluate
from slm_lab.experiment.lock import only_one
from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.paths import RunPaths
from slm_lab.experiment.profiling import PHASES, profiler, summary
from slm_lab.experiment.signals import StopRequest
from slm_lab.lib.clock import Clock, crossed
from slm_lab.lib.device import pick_device
from slm_lab.lib.files import RowWriter, read_rows, truncate_rows
from slm_lab.lib.floats import choose_matmul, tiny_is_zero
from slm_lab.lib.malloc import keep_freed_memory
from slm_lab.lib.rng import derive_seed
from slm_lab.spec import Spec, SpecError

if TYPE_CHECKING:
    from slm_lab.agent.shared import Shared

Report = Callable[[int, float, float], None]
"""(frame, frames per second, total_reward): called about twice a second."""

REPORT_SECONDS = 0.5
WAIT_SECONDS = 0.01
MA_ROWS = 100
SAVE_SECONDS = 10.0
SAVE_SHARE = 0.02
"""A checkpoint is written at the first log row and then every 10 seconds, or less often where it would take more than
this share of the time: a replay memory of gigabytes is not written every few seconds."""

STEPS_TO_COMPILE, LARGE_STEPS_TO_COMPILE, CONV_STEPS_TO_COMPILE = 50_000, 15_000, 2_000
"""Gradient steps that earn back the 10 to 40 s that it takes to compile them: one saves 0.2 ms or more, and with matrix
products of LARGE_PRODUCT on a CPU more than 2 ms. Through convolutions more is saved on a GPU, and nothing on a CPU,
where it is torch's library for them that takes the time."""

LARGE_PRODUCT = 2**24
"""Multiplications of a matrix product: a batch of 256 in a layer of 256 to 256."""

PRODUCT_OF_A_THREAD = 2**22
"""Multiplications of one matrix product that each thread is to have: SAC with two layers of 256 gains 1.6 times by a
second one. Less gains little, and much is lost where something else runs on the cores, as threads wait for each other
at every product."""


class Session:
    """Trains one agent on one seed, or goes on where a checkpoint of it stopped.

    With `meta.distributed` it is one of the workers that train one agent (see `slm_lab.agent.shared`). Frames and
    optimiser steps are then those of all workers together, a row bears the multiple of its frequency that was passed,
    so that the curves of the workers have the same frames, and the 100 episodes of `total_reward` are shared out.

    Args:
        spec: the spec, with its seed.
        paths: file names of this session.
        mode: "train" or "dev"; dev adds TensorBoard, the gradient norm and a check that the nets are being trained.
        options: how to run.
        threads: CPU threads: the environments have all of them, the nets as many as pay.
        report: is told the progress.
        stop: a request to save and stop.
        until: the frame at which to save and stop, where that is before `max_frame`.
    """

    def __init__(
        self,
        spec: Spec,
        paths: RunPaths,
        *,
        mode: str = "train",
        options: RunOptions | None = None,
        threads: int = 1,
        report: Report | None = None,
        stop: StopRequest | None = None,
        until: int | None = None,
    ) -> None:
        self.spec, self.paths, self.mode = spec, paths, mode
        self.until = spec.env.max_frame if until is None else min(until, spec.env.max_frame)
        self.options, self.threads = options or RunOptions(), threads
        self.report, self.stop = report, stop or StopRequest()
        self.index = paths.session or 0
        self.seed = derive_seed(spec.meta.seed or 0, "trial", paths.trial, "session", self.index)

    def run(self) -> bool:
        """Train until `max_frame`, or until a stop is requested.

        Returns:
            True if `max_frame` was reached; False if stopped, with everything saved.

        Raises:
            SpecError: the spec does not fit the environment or the machine, or another process is at work on this run.
            DivergenceError: a loss is not finite.
        """
        keep_freed_memory()
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.deterministic = True  # same seed, same bits, on a GPU too
        # a session whose parent was killed takes a moment to notice it and to save
        lock = only_one(self.paths.log_dir / f".{self.paths.session_prefix}.lock", self.paths, timeout=60)
        # numpy's products here are small: a second thread would only be waited for
        with tiny_is_zero(), threadpool_limits(1, user_api="blas"), lock:
            self._build()
            try:
                self._restore()
                if self.options.torch_compile == "auto":
                    self.agent.use_numpy()
                if self.compiled:
                    self._compile("as told" if self.options.torch_compile == "true" else "as before")
                profile = self.options.profile if self.index == 0 else "false"
                with profiler(profile, self.paths, self.env, self.agent) as told:
                    try:
                        self._loop(told)
                    except DivergenceError as error:
                        raise self._env_is_broken() or error from None
                if profile != "false" and any(self._spent_in_all.values()):
                    logger.info("session {}: {}", self.index, summary(self._spent_in_all, self.paths))
                self._end_together()
                if self.clock.frame != self._saved_frame:
                    if self.stop.requested:
                        logger.info("session {}: stopping; saving at frame {}", self.index, self.clock.frame)
                    self._save()
            except Exception as error:
                self._fail_together(error)
                raise
            finally:
                self._close()
        return self.clock.frame >= self.spec.env.max_frame

    def _build(self) -> None:
        spec, options = self.spec, self.options
        gamma = getattr(spec.agent.algorithm, "gamma", 0.99)
        self.env = make_env(
            spec.env,
            derive_seed(self.seed, "env"),
            gamma=gamma,
            render_mode="human" if options.render else None,
            num_threads=self.threads,
        )
        try:
            gpu = spec.agent.net.gpu if spec.agent.net is not None else False
            # what processes share lies in the memory of the CPU
            device = pick_device(False if spec.meta.distributed else gpu, options.cuda_offset + self.index)
        except RuntimeError as error:
            raise SpecError(str(error)) from None
        if spec.meta.distributed:  # so that the mean over the workers is that of the last episodes of all
            self.env.stats.window = max(1, self.env.stats.window // spec.meta.max_session)
        self.agent = Agent(spec, self.env, self.seed, device)
        torch.set_num_threads(self._net_threads())
        if device.type == "cpu":
            choose_matmul(self.agent.algorithm.modules.values())
        self.compiled: bool | None = {"true": True, "false": False}.get(options.torch_compile)  # None: not yet known
        self._learned_first: Sequence[int] | None = None  # frame and gradient steps after the first training event
        self.shared: Shared | None = None
        self.clock = Clock()
        self.totals: dict[str, list[float]] = {}  # metric -> [sum, count] since the last log row
        self.history: deque[float] = deque(maxlen=MA_ROWS)
        self.eval_history: deque[float] = deque(maxlen=MA_ROWS)
        self.best, self.best_state = -math.inf, None
        self.checkpoints = Checkpoints(self.paths.model_dir, self.paths.checkpoint_stem(), keep=2)
        self.best_checkpoints = Checkpoints(self.paths.model_dir, self.paths.checkpoint_stem(best=True), keep=1)
        self.writers: dict[str, RowWriter] = {}
        self.tensorboard: Any = self._tensorboard() if self.mode == "dev" else None
        self._weights_at_start = self._weights() if self.mode == "dev" else {}  # of the learners not yet checked
        self._next_save, self._saved_frame = 0.0, -1
        self._row_clock, self._row_frame = time.perf_counter(), 0
        self._spent = dict.fromkeys(PHASES, 0.0)  # seconds since the last log row
        self._spent_in_all = dict.fromkeys(PHASES, 0.0)

    def _net_threads(self) -> int:
        """Return how many of the threads the nets get: small products run faster on one."""
        worth = self.threads if self.agent.convolves else self.agent.largest_product // PRODUCT_OF_A_THREAD
        return max(1, min(self.threads, worth))

    # --- the loop

    def _loop(self, profile: Any) -> None:
        env, agent, clock, spent = self.env, self.agent, self.clock, self._spent
        num_envs, max_frame = env.num_envs, self.spec.env.max_frame
        log_every, eval_every = self.spec.meta.log_frequency, self.spec.meta.eval_frequency
        rigorous = self.spec.meta.rigorous_eval > 0
        obs = env.reset() if self._saved_frame < 0 else env.obs
        now = time.perf_counter
        first_frame, began = clock.frame, now()
        next_report = began
        while clock.frame < self.until and not self.stop.requested:
            start = now()
            action = agent.act(obs, clock.frame)
            acted = now()
            step = env.step(action)
            stepped = now()
            agent.observe(obs, action, step)
            obs = step.obs
            passed = clock.tick(num_envs, None if self.shared is None else self.shared.count(num_envs))
            remembered = now()
            if agent.ready(clock.frame):
                self._add(agent.update(clock.frame))
                clock.opt_step = agent.opt_steps if self.shared is None else self.shared.opt_step
                if self.compiled is None:
                    self._judge_compiling()
                if profile is not None:
                    profile.step()
            learned = now()
            spent["act"] += acted - start
            spent["env"] += stepped - acted
            spent["memory"] += remembered - stepped
            spent["learn"] += learned - remembered
            if learned > next_report and self.report is not None:
                next_report = learned + REPORT_SECONDS
                self.report(clock.frame, self._fps(), env.stats.total_reward)
            if rigorous and (crossed(clock.frame, passed, eval_every) or clock.frame >= max_frame):
                self._evaluate()
            if crossed(clock.frame, passed, log_every) or clock.frame >= max_frame:
                self._log()
                if now() > self._next_save and clock.frame < max_frame:
                    self._save()
        if self.report is not None:  # the mean, as the stretch since the last row may be too short to tell anything
            self.report(clock.frame, (clock.frame - first_frame) / max(now() - began, 1e-9), env.stats.total_reward)

    def _judge_compiling(self) -> None:
        """Compile where the gradient steps to come earn it back. They are counted, not timed: same seed, same bits."""
        frame, steps = self.clock.frame, self.agent.gradient_steps
        if self._learned_first is None:
            self._learned_first = frame, steps
            return
        first_frame, first_steps = self._learned_first
        to_come = (steps - first_steps) / (frame - first_frame) * (self.spec.env.max_frame - frame)
        on_cpu, enough = self.agent.device.type == "cpu", float(STEPS_TO_COMPILE)
        if self.agent.convolves:
            enough = math.inf if on_cpu else CONV_STEPS_TO_COMPILE
        elif on_cpu and self.agent.largest_product >= LARGE_PRODUCT:
            enough = LARGE_STEPS_TO_COMPILE
        self.compiled = to_come >= enough and not self.agent.recurrent and not self.agent.in_numpy
        if self.compiled:
            self._compile(f"{to_come:.0f} gradient steps are to come, and {enough:.0f} earn it back")

    def _compile(self, why: str) -> None:
        logger.info(
            "session {}: torch.compile: {}; it takes 10 to 40 s, and none where it was done before", self.index, why
        )
        self.agent.compile()

    def _env_is_broken(self) -> DivergenceError | None:
        """Return what to say where it is the environment that gave no numbers: no algorithm can stay finite then."""
        stats = self.env.stats
        rewards = [*stats.running_return, stats.total_reward if stats.episodes else 0.0]
        for what, values in (("a reward", rewards), ("an observation", self.env.obs)):
            if not np.isfinite(values).all():
                return DivergenceError(f"{self.spec.env.name} returned {what} that is no finite number; mend it")
        return None

    def _add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            total = self.totals.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1

    def _fps(self) -> float:
        return (self.clock.frame - self._row_frame) / max(time.perf_counter() - self._row_clock, 1e-9)

    def _log(self) -> None:
        """Append a row of the training curve."""
        total_reward = self.env.stats.total_reward
        if math.isfinite(total_reward):
            self.history.append(total_reward)
        if not self.spec.meta.rigorous_eval:
            self._remember_best(total_reward)
        row = self._row(total_reward, self.history, self.spec.meta.log_frequency)
        self._append("train", row)
        logger.opt(lazy=True).debug("{}", lambda: " | ".join(f"{key}:{value:.4g}" for key, value in row.items()))
        if self.tensorboard is not None:
            self._log_tensorboard(row)
        self.totals.clear()
        self.env.stats.drain()
        for phase, seconds in self._spent.items():
            self._spent_in_all[phase] += seconds
        self._spent.update(dict.fromkeys(PHASES, 0.0))
        self._row_clock, self._row_frame = time.perf_counter(), self.clock.frame

    def _row(self, total_reward: float, history: deque[float], every: int) -> dict[str, float]:
        clock, algorithm, means = self.clock, self.agent.algorithm, self._means()
        logged = (*algorithm.logged, *(["grad_norm"] if self.mode == "dev" and algorithm.learners else []))
        busy = max(sum(self._spent.values()), 1e-9)
        return {
            "total_reward": total_reward,
            "total_reward_ma": sum(history) / len(history) if history else math.nan,
            "loss": means.get("loss", math.nan),
            "fps": round(self._fps(), 1),
            "frame": self._frame_of_row(every),
            "wall_t": round(clock.elapsed, 2),
            "t": clock.t,
            "epi": self.env.stats.episodes,
            "opt_step": clock.opt_step,
            "lr": self.agent.lr,
            **algorithm.variables(clock.frame),
            **{name: means.get(name, math.nan) for name in logged},
            **{f"time_{phase}": round(self._spent[phase] / busy, 4) for phase in PHASES},
        }

    def _frame_of_row(self, every: int) -> int:
        frame, max_frame = self.clock.frame, self.spec.env.max_frame
        if self.shared is None:
            return frame
        return max_frame if frame >= max_frame else frame // every * every

    def _means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.totals.items()}

    def _append(self, kind: str, row: dict[str, float]) -> None:
        if kind not in self.writers:
            self.writers[kind] = RowWriter(self.paths.session_df(kind))
        writer = self.writers[kind]
        # a run that was begun in another mode keeps the columns that it has
        writer.append({name: row[name] for name in row if writer.columns is None or name in writer.columns})

    # --- evaluation and the best weights

    def _evaluate(self) -> None:
        seed = derive_seed(self.seed, "eval", self.clock.frame)
        returns = evaluate(
            self.agent,
            self.spec.env,
            seed,
            episodes=self.spec.meta.rigorous_eval,
            train_env=self.env,
            num_threads=self.threads,
        )
        total_reward = float(np.mean(returns))
        self.eval_history.append(total_reward)
        self._remember_best(total_reward)
        self._append("eval", self._row(total_reward, self.eval_history, self.spec.meta.eval_frequency))

    def _remember_best(self, score: float) -> None:
        """Keep the best weights in memory; they reach the disk with the next checkpoint.

        As long as no episode has ended (`score` is NaN) nothing is known, and the newest weights are the best.
        """
        known = math.isfinite(score)
        if (score >= self.best if known else self.best == -math.inf) and self.agent.algorithm.modules:
            self.best = score if known else -math.inf
            nets = {
                name: {key: value.detach().clone() for key, value in weights.items()}
                for name, weights in self.agent.nets_state().items()
            }
            self.best_state = (
                self.clock.frame,
                {
                    **nets,
                    "normalizers": self.env.normalizer_state(),
                    "score": {"total_reward": score if known else None},
                },
            )

    # --- saving and going on

    def _save(self) -> None:
        if self.shared is not None and not self.shared.sound():
            logger.warning("session {}: the weights have diverged and are not saved", self.index)
            return
        start = time.perf_counter()
        for writer in self.writers.values():
            writer.sync()
        if self.best_state is not None:
            self.best_checkpoints.save(*self.best_state)
            self.best_state = None
        session = {
            "totals": self.totals,
            "history": list(self.history),
            "eval_history": list(self.eval_history),
            "compiled": self.compiled,
            "learned_first": self._learned_first,
        }
        self.checkpoints.save(
            self.clock.frame,
            {
                **self.agent.nets_state(),
                "agent": self.agent.state_dict(),
                "env": self.env.state_dict(),
                "clock": self.clock.state_dict(),
                "session": session,
            },
        )
        took = time.perf_counter() - start
        self._next_save = time.perf_counter() + max(SAVE_SECONDS, took / SAVE_SHARE)
        self._saved_frame = self.clock.frame
        logger.debug("saved at frame {} in {:.2f} s", self.clock.frame, took)

    def _restore(self) -> None:
        """Go on from the newest valid checkpoint, if there is one; rows that came after it are lived again."""
        loaded = self.checkpoints.load()
        if loaded is None and self.checkpoints.exist():
            raise SpecError(
                f"{self.paths.model_dir}: every checkpoint of session {self.index} is damaged; "
                "put one back from a copy, or begin a new run"
            )
        if loaded is not None:
            self._load(*loaded)
        self._join()
        for kind in ("train", "eval"):
            truncate_rows(self.paths.session_df(kind), self.clock.frame or -1)
        best = self.best_checkpoints.load({"score"})
        if best is not None and best[1]["score"]["total_reward"] is not None:
            self.best = best[1]["score"]["total_reward"]
        self._row_frame = self.clock.frame
        if loaded is not None:
            logger.info("session {}: resumed at frame {}", self.index, self.clock.frame)

    def _load(self, frame: int, state: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        last_step = self.env.num_envs * (self.spec.meta.max_session if self.spec.meta.distributed else 1)
        if frame >= self.spec.env.max_frame + last_step:
            past = f"{self.spec.env.max_frame} is past, as the run is at frame {frame}"
            raise SpecError(f"env.max_frame: {past}; give it more, or begin a new run")
        try:
            self.agent.load_nets(state)
            self.agent.load_state_dict(state["agent"])
            self.clock.load_state_dict(state["clock"])
            session = state["session"]
            self.totals = session["totals"]
            self.history.extend(session["history"])
            self.eval_history.extend(session["eval_history"])
            if self.options.torch_compile == "auto":
                self.compiled = session["compiled"]
                self._learned_first = session["learned_first"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise SpecError(
                f"{self.paths.model_dir}: the checkpoint of frame {frame} does not fit the spec "
                f"({' '.join(str(error).split())}); undo what was changed in the spec, or begin a new run"
            ) from error
        if not self.env.load_state_dict(state["env"]):
            self.agent.interrupt()
            logger.info(
                "session {}: {} cannot be put back where it was; fresh episodes begin", self.index, self.spec.env.name
            )
        self._saved_frame = frame

    # --- one of several workers

    def _join(self) -> None:
        """Come together with the other workers, and go on from where worker 0 is."""
        mode, file = self.spec.meta.distributed, self.paths.shared_memory
        if mode is False or (self.index > 0 and not self._wait(file.exists)):
            return
        if os.name == "nt":
            raise SpecError("meta.distributed: needs locks that Windows does not have; set it to false")
        from slm_lab.agent.shared import Shared

        workers, clock = self.spec.meta.max_session, self.clock
        self.shared = Shared(self.agent, mode, file, self.index, workers, clock.frame, clock.opt_step)
        clock.frame, clock.opt_step = self.shared.frame, self.shared.opt_step

    def _end_together(self) -> None:
        """Wait for the last step of the last worker: its weights are the result of all."""
        if self.shared is None or self.clock.frame < self.spec.env.max_frame:
            return
        self._log_end()
        if self._wait(self.shared.done):
            self.shared.pull()
            self.clock.frame, self.clock.opt_step = self.shared.frame, self.shared.opt_step

    def _log_end(self) -> None:
        """Write the rows at `max_frame` that are not there: others may have used up the frames before it began."""
        if self.spec.meta.rigorous_eval and not self._has_last_row("eval"):
            self._evaluate()
        if not self._has_last_row("train"):
            self._log()

    def _has_last_row(self, kind: str) -> bool:
        file = self.paths.session_df(kind)
        return file.exists() and self.spec.env.max_frame in read_rows(file).get("frame", ())

    def _fail_together(self, error: Exception) -> None:
        """Keep the others from saving weights that have diverged; say what it is where a worker met them unawares."""
        if self.shared is None or (self.shared.sound() and not isinstance(error, DivergenceError)):
            return
        self.shared.spoil()
        if not isinstance(error, DivergenceError):
            raise DivergenceError(f"the weights of all workers have diverged by frame {self.clock.frame}") from error

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Wait for other workers; return False if a stop is requested before."""
        next_report = 0.0
        while not condition():
            if self.stop.requested:
                return False
            if self.report is not None and time.perf_counter() > next_report:  # it notices that the parent is gone
                next_report = time.perf_counter() + REPORT_SECONDS
                self.report(self.clock.frame, math.nan, math.nan)
            time.sleep(WAIT_SECONDS)
        return True

    def _close(self) -> None:
        self.env.close()
        for writer in self.writers.values():
            writer.close()
        if self.tensorboard is not None:
            self.tensorboard.close()

    # --- dev and profiling

    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.paths.log_dir, filename_suffix=f".{self.paths.session_prefix}")

    def _log_tensorboard(self, row: dict[str, float]) -> None:
        frame = self.clock.frame
        for name, value in {**self._means(), **row}.items():
            self.tensorboard.add_scalar(name, value, frame)
        for net, module in self.agent.algorithm.modules.items():
            for name, parameter in module.named_parameters():
                self.tensorboard.add_histogram(f"{net}/{name}", parameter.detach(), frame)
        self._check_weights()

    def _check_weights(self) -> None:
        """Warn of what has not changed since the start, once each learner has taken a step: some wait for others."""
        learners = self.agent.algorithm.learners
        stepped = {name: learners[name].opt_steps for name in self._weights_at_start if learners[name].opt_steps}
        weights = self._weights() if stepped else {}
        for name, steps in stepped.items():
            before = self._weights_at_start.pop(name)
            if all(torch.equal(now, then) for now, then in zip(weights[name], before, strict=True)):
                logger.warning("no parameter of {} has changed after {} optimiser steps", name, steps)

    def _weights(self) -> dict[str, list[torch.Tensor]]:
        learners = self.agent.algorithm.learners
        return {
            name: [parameter.detach().clone() for group in learner.groups for parameter in group.parameters]
            for name, learner in learners.items()
        }
