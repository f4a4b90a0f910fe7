"""Replay: the best checkpoint of a run plays, with exploration off; nothing is written into the run's results."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loguru import logger

from slm_lab.agent import Agent
from slm_lab.env import VecEnv, make_env
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.experiment.paths import RunPaths, find_run
from slm_lab.lib.device import pick_device
from slm_lab.lib.rng import derive_seed
from slm_lab.spec import Spec, SpecError, load_spec

FPS = 30


def enjoy(
    target: str | Path,
    *,
    episodes: int = 10,
    render: bool = False,
    record: bool = False,
    video: Path | None = None,
    tell: Callable[[str], None] = print,
) -> list[float]:
    """Play the best checkpoint of a session.

    Args:
        target: a run folder (its best session plays) or a session's spec file in it.
        episodes: how many episodes to play.
        render: draw to a window.
        record: write an mp4.
        video: where the mp4 goes; beside the run's folders, as `video/{session}.mp4`, if None.
        tell: receives a line per episode.

    Returns:
        the raw return of every episode.

    Raises:
        SpecError: there is no run, or no checkpoint in it yet.
    """
    paths = find_run(target)
    if paths.session is None:
        paths = paths.for_session(_best_session(paths))
    spec = load_spec(paths.session_spec, paths.spec_name)
    agent, env = _load(spec, paths, "human" if render else "rgb_array" if record else None)
    try:
        if not record:
            return _play(agent, env, episodes, tell)
        path = video or paths.folder / "video" / f"{paths.session_prefix}.mp4"
        with Recorder(path) as recorder:
            scores = _play(agent, env, episodes, tell, lambda: recorder.add(env.render()))
        tell(f"{recorder.frames} pictures in {path}")
        return scores
    finally:
        env.close()


def _load(spec: Spec, paths: RunPaths, render_mode: str | None) -> tuple[Agent, VecEnv]:
    nets = None if spec.agent.net is None else _best_checkpoints(paths).load()
    if nets is None and spec.agent.net is not None:
        remedy = (
            "it is damaged: train on, which writes it anew" if _best_checkpoints(paths).exist() else "train it first"
        )
        raise SpecError(f"{paths.model_dir}: no best checkpoint of session {paths.session} to play; {remedy}")
    seed = derive_seed(spec.meta.seed or 0, "enjoy", paths.session or 0)
    env = make_env(spec.env, seed, num_envs=1, training=False, render_mode=render_mode)
    gpu = spec.agent.net is not None and bool(spec.agent.net.gpu)
    agent = Agent(spec, env, seed, pick_device("auto" if gpu else False, 0))  # it may play where it cannot train
    if nets is not None:
        frame, state = nets
        agent.load_nets(state)
        env.load_normalizers(state["normalizers"])
        logger.info("playing session {} as it was at frame {}", paths.session, frame)
    return agent, env


def _best_checkpoints(paths: RunPaths) -> Checkpoints:
    return Checkpoints(paths.model_dir, paths.checkpoint_stem(best=True), keep=1)


def _best_session(paths: RunPaths) -> int:
    """Return the session whose best checkpoint scored highest."""
    count = load_spec(paths.spec, paths.spec_name).meta.max_session
    scores = {}
    for index in range(count):
        loaded = _best_checkpoints(paths.for_session(index)).load({"score"})
        if loaded is not None:
            score = loaded[1]["score"]["total_reward"]
            scores[index] = -math.inf if score is None else score
    return max(scores, key=scores.__getitem__) if scores else 0


def _play(
    agent: Agent, env: VecEnv, episodes: int, tell: Callable[[str], None], on_frame: Callable[[], None] = lambda: None
) -> list[float]:
    scores: list[float] = []
    for _ in agent.play(env):
        for episode in env.stats.drain():
            scores.append(episode.total_reward)
            tell(f"episode {len(scores)}: score {episode.total_reward:g} in {episode.length} steps")
        if len(scores) >= episodes:
            break
        on_frame()
    tell(f"mean score over {episodes} episodes: {np.mean(scores):.2f} ± {np.std(scores):.2f}")
    return scores


class Recorder:
    """Writes pictures to an mp4 (H.264), at 30 a second.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.frames = path, 0
        self._writer = None

    def __enter__(self) -> "Recorder":
        return self

    def add(self, picture: np.ndarray | None) -> None:
        """Add one picture [height, width, 3] uint8.

        Raises:
            SpecError: the environment draws none.
        """
        if picture is None:
            raise SpecError("--record: this environment draws no pictures; leave the flag out")
        if self._writer is None:
            from imageio_ffmpeg import write_frames

            height, width = picture.shape[:2]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = write_frames(
                str(self.path), (width, height), fps=FPS, macro_block_size=2, ffmpeg_log_level="error"
            )
            self._writer.send(None)
        self._writer.send(np.ascontiguousarray(picture))
        self.frames += 1

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
