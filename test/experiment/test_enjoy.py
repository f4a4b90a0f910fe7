"""Replay of the best checkpoint."""

import hashlib

import imageio_ffmpeg
import numpy as np
import pytest
from lab_runs import CONV, begin, make_spec, newest, run_session, same

from slm_lab.experiment import enjoy as module
from slm_lab.experiment.enjoy import enjoy
from slm_lab.experiment.retro import retro
from slm_lab.experiment.trial import Trial
from slm_lab.spec import SpecError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of PPO on CartPole with a normaliser."""
    spec = make_spec(normalize_obs=True, max_frame=600)
    paths = begin(tmp_path_factory.mktemp("run"), spec)
    run_session(spec, paths)
    return paths


def fingerprints(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


def test_every_episode_is_told_and_nothing_is_written(run):
    before, lines = fingerprints(run.folder), []
    scores = enjoy(run.folder, episodes=3, tell=lines.append)
    assert fingerprints(run.folder) == before
    assert len(scores) == 3
    for number, (line, score) in enumerate(zip(lines, scores, strict=False), 1):
        assert line.startswith(f"episode {number}: score {score:g}")
    assert f"{np.mean(scores):.2f}" in lines[-1]


def test_it_plays_the_best_weights_greedily(run, monkeypatch):
    played = []
    monkeypatch.setattr(module, "_play", lambda agent, env, *_: played.append((agent, env)) or [0.0])
    enjoy(run.folder)
    agent, env = played[0]
    best = newest(run, kind="ckpt-best")[1]
    assert same(agent.nets_state()["net"], best["net"])
    assert same(env.normalizer_state(), best["normalizers"])
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    actions = [agent.act(obs, explore=False) for _ in range(5)]
    assert all(np.array_equal(actions[0], other) for other in actions)
    sampled = [agent.act(obs, explore=True) for _ in range(5)]
    assert not all(np.array_equal(sampled[0], other) for other in sampled)  # the test can tell
    env.reset()
    env.step(actions[0][:1])
    assert same(env.normalizer_state(), best["normalizers"])


def test_it_is_the_same_every_time(run):
    quiet = {"episodes": 2, "tell": lambda line: None}
    assert enjoy(run.folder, **quiet) == enjoy(run.for_session(0).session_spec, **quiet)


def test_a_video_is_all_that_it_adds(run):
    before, lines = fingerprints(run.folder), []
    scores = enjoy(run.folder, episodes=1, record=True, tell=lines.append)
    video = run.folder / "video" / "tiny_t0_s0.mp4"
    after = fingerprints(run.folder)
    assert after.keys() - before.keys() == {video}
    assert all(after[path] == before[path] for path in before)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert frames == scores[0]  # CartPole gives 1 a step
    assert seconds == pytest.approx(frames / 30, abs=0.1)
    assert str(video) in lines[-1]


def test_a_video_may_go_elsewhere(run, tmp_path):
    enjoy(run.folder, episodes=1, record=True, video=tmp_path / "a" / "b.mp4", tell=lambda line: None)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a" / "b.mp4"))[0] > 0


@pytest.mark.slow
def test_retro_does_not_mind_videos(tmp_path):
    trial = Trial(make_spec(max_frame=400), data_dir=tmp_path)
    trial.run()
    enjoy(trial.paths.folder, episodes=1, record=True, tell=lambda line: None)
    before = trial.paths.trial_metrics_scalar.read_bytes()
    retro(trial.paths.folder)
    assert trial.paths.trial_metrics_scalar.read_bytes() == before


def test_an_environment_without_pictures(tmp_path):
    spec = make_spec(env="odd_envs:Walk", max_frame=200)
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    assert len(enjoy(paths.folder, episodes=2, tell=lambda line: None)) == 2
    before = fingerprints(paths.folder)
    with pytest.raises(SpecError, match="draws no pictures"):
        enjoy(paths.folder, episodes=1, record=True, tell=lambda line: None)
    assert fingerprints(paths.folder) == before
    assert not (paths.folder / "video").exists()


def test_the_best_session_plays(tmp_path, monkeypatch):
    spec = make_spec(max_frame=600, meta={"max_session": 3})
    paths = begin(tmp_path, spec)
    for index in range(3):
        run_session(spec, paths, index)
        paths.for_session(index).session_spec.write_bytes(paths.spec.read_bytes())
    best = [newest(paths, index, "ckpt-best")[1] for index in range(3)]
    winner = int(np.argmax([state["score"]["total_reward"] for state in best]))
    played = []
    monkeypatch.setattr(module, "_play", lambda agent, *_: played.append(agent.nets_state()) or [0.0])
    enjoy(paths.folder)
    enjoy(paths.for_session((winner + 1) % 3).session_spec)  # but one may ask for another
    assert same(played[0]["net"], best[winner]["net"])
    assert same(played[1]["net"], best[(winner + 1) % 3]["net"])


def test_a_run_without_a_checkpoint(tmp_path):
    paths = begin(tmp_path, make_spec())
    with pytest.raises(SpecError, match="no best checkpoint of session 0 to play; train it first"):
        enjoy(paths.folder)


def test_a_damaged_best_checkpoint(run):
    (folder,) = run.model_dir.glob("*_ckpt-best-*")
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(SpecError, match="no best checkpoint of session 0 to play; it is damaged: train on"):
        enjoy(run.folder)
    (folder / "manifest.json").write_text(manifest)


@pytest.mark.slow
def test_atari_in_colour(tmp_path):
    spec = make_spec("DoubleDQN", "ALE/Pong-v5", net=CONV, max_frame=400, max_t=60)
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    (score,) = enjoy(paths.folder, episodes=1, record=True, tell=lambda line: None)
    assert -21 <= score <= 21
    video = str(paths.folder / "video" / "tiny_t0_s0.mp4")
    assert imageio_ffmpeg.count_frames_and_secs(video)[0] == 60
    assert next(imageio_ffmpeg.read_frames(video))["size"] == (160, 210)
