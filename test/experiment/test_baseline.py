import math

import pytest

from slm_lab.experiment import baseline
from slm_lab.experiment.baseline import baseline_key, random_baseline, stored_baseline
from slm_lab.lib.files import read_json, write_json
from slm_lab.spec import EnvSpec


def env(name, **kwargs):
    return EnvSpec(name=name, max_frame=1000, **kwargs)


def test_shipped_figures_are_the_published_ones(tmp_path):
    assert random_baseline(env("CartPole-v1"), tmp_path) == 22.97
    assert random_baseline(env("ALE/Pong-v5"), tmp_path) == -20.25
    assert len(read_json(baseline.SHIPPED)) == 17
    assert not (tmp_path / "random_baseline.json").exists()  # nothing had to be played


def test_keyword_arguments_make_another_environment():
    assert baseline_key("LunarLander-v3", {}) == "LunarLander-v3"
    one, other = {"b": 1, "continuous": True}, {"continuous": True, "b": 1}
    assert baseline_key("LunarLander-v3", one) == baseline_key("LunarLander-v3", other)
    assert baseline_key("LunarLander-v3", one) not in ("LunarLander-v3", baseline_key("LunarLander-v3", {"b": 1}))


def test_wrappers_make_another_environment_and_a_time_limit_does_not(tmp_path):
    assert random_baseline(env("CartPole-v1", max_t=5), tmp_path) == 22.97
    wrapped = env("CartPole-v1", wrappers=[{"id": "TimeLimit", "max_episode_steps": 4}])
    assert random_baseline(wrapped, tmp_path) == 4.0


def test_an_unknown_environment_is_played_once_and_remembered(tmp_path):
    # a pole that falls after 10 steps at the latest: every step counts 1
    spec = env("CartPole-v1", max_episode_steps=10)
    value = random_baseline(spec, tmp_path)
    assert 9.0 < value <= 10.0
    [key] = read_json(tmp_path / "random_baseline.json")
    assert key.startswith("CartPole-v1 ")
    assert random_baseline(spec, tmp_path / "other") == value  # seeded
    write_json(tmp_path / "random_baseline.json", {key: 7.5, "other": 1.0})
    assert random_baseline(spec, tmp_path) == 7.5
    assert stored_baseline("other", tmp_path) == 1.0


def test_the_live_figure_agrees_with_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "SHIPPED", tmp_path / "none.json")
    # standard deviation of a random episode is about 12, of the mean over 100 about 1.2
    assert random_baseline(env("CartPole-v1"), tmp_path) == pytest.approx(22.97, abs=5.0)


def test_what_cannot_be_played_counts_zero_with_a_warning(tmp_path, log_messages):
    assert random_baseline(env("NoSuchGame-v0"), tmp_path) == 0.0
    assert "NoSuchGame-v0" in "".join(log_messages)
    assert not (tmp_path / "random_baseline.json").exists()


def test_an_environment_whose_episodes_do_not_end_is_given_up(tmp_path, monkeypatch, log_messages):
    monkeypatch.setattr(baseline, "MAX_STEPS", 50)
    assert random_baseline(env("MountainCarContinuous-v0"), tmp_path) == 0.0  # 999 steps an episode
    assert "MountainCarContinuous-v0" in "".join(log_messages)


def test_a_spoilt_store_is_played_over(tmp_path):
    (tmp_path / "random_baseline.json").write_text('{"CartPole-v1')
    value = random_baseline(env("CartPole-v1", max_episode_steps=3), tmp_path)
    assert value == 3.0
    assert list(read_json(tmp_path / "random_baseline.json").values()) == [3.0]
    assert math.isfinite(value)
