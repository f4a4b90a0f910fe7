"""Every shipped spec can be trusted: it is sound, comparable with the published scores, and trains."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from learning import learn
from loguru import logger

from slm_lab.spec import Spec, SpecError, list_specs, load_spec

SHIPPED = [(file, name) for file, name, _ in list_specs()]

PROMISED = {
    "demo.json": ["dqn_cartpole"],
    "demo_search.json": ["ppo_cartpole_search"],
    "cont_test.json": [
        "a2c_gae_pendulum_single",
        "a2c_gae_pendulum",
        "a2c_gae_bipedalwalker_single",
        "a2c_gae_bipedalwalker",
    ],
    "benchmark/reinforce/reinforce_cartpole.json": ["reinforce_cartpole"],
    "benchmark/reinforce/reinforce_cross_entropy_cartpole.json": ["reinforce_cross_entropy_cartpole"],
    "benchmark/dqn/dqn_cartpole.json": ["dqn_cartpole", "ddqn_cartpole"],
    "benchmark/dqn/dqn_lunar.json": ["dqn_concat_lunar", "ddqn_concat_lunar"],
    "benchmark/dqn/dqn_pong.json": ["dqn_pong"],
    "benchmark/dqn/dqn_acrobot.json": ["dqn_acrobot"],
    "benchmark/dqn/ddqn_per_cartpole.json": ["ddqn_per_cartpole"],
    "benchmark/dqn/ddqn_per_acrobot.json": ["ddqn_per_acrobot"],
    "benchmark/dqn/ddqn_per_lunar.json": ["ddqn_per_concat_lunar"],
    "benchmark/sarsa/sarsa_cartpole.json": ["sarsa_cartpole"],
    "benchmark/sarsa/sarsa_atari.json": ["sarsa_atari"],
    "benchmark/rainbow/rainbow_cartpole.json": ["rainbow_cartpole"],
    "benchmark/rainbow/rainbow_lunar.json": ["rainbow_lunar"],
    "benchmark/a2c/a2c_gae_cartpole.json": ["a2c_gae_cartpole"],
    "benchmark/a2c/a2c_gae_pendulum.json": ["a2c_gae_pendulum"],
    "benchmark/a2c/a2c_gae_lunar.json": ["a2c_gae_lunar", "a2c_gae_lunar_continuous"],
    "benchmark/a2c/a2c_gae_pong.json": ["a2c_gae_pong"],
    "benchmark/a2c/a2c_gae_mujoco.json": ["a2c_gae_mujoco", "a2c_gae_humanoid"],
    "benchmark/a2c/a2c_nstep_mujoco.json": ["a2c_nstep_mujoco"],
    "benchmark/a3c/a3c_cartpole.json": ["a3c_cartpole"],
    "benchmark/a3c/a3c_lunar.json": ["a3c_lunar"],
    "benchmark/a3c/a3c_mujoco.json": ["a3c_mujoco"],
    "benchmark/a3c/a3c_atari.json": ["a3c_atari"],
    "benchmark/dppo/dppo_cartpole.json": ["dppo_cartpole"],
    "benchmark/dppo/dppo_mujoco.json": ["dppo_mujoco"],
    "benchmark/dppo/dppo_atari.json": ["dppo_atari"],
    "benchmark/ppo/ppo_cartpole.json": ["ppo_shared_cartpole", "ppo_cartpole"],
    "benchmark/ppo/ppo_lunar.json": ["ppo_lunar", "ppo_lunar_continuous"],
    "benchmark/ppo/ppo_pendulum.json": ["ppo_pendulum"],
    "benchmark/ppo/ppo_acrobot.json": ["ppo_acrobot"],
    "benchmark/a2c/a2c_gae_acrobot.json": ["a2c_gae_acrobot"],
    "benchmark/sil/sil_cartpole.json": ["sil_cartpole"],
    "benchmark/sil/ppo_sil_cartpole.json": ["ppo_sil_cartpole"],
    "benchmark/ppo/ppo_pong.json": ["ppo_pong"],
    "benchmark/ppo/ppo_mujoco.json": ["ppo_mujoco", "ppo_humanoid"],
    "benchmark/sac/sac_cartpole.json": ["sac_cartpole"],
    "benchmark/sac/sac_acrobot.json": ["sac_acrobot"],
    "benchmark/sac/sac_pendulum.json": ["sac_pendulum"],
    "benchmark/sac/sac_lunar.json": ["sac_lunar", "sac_lunar_continuous"],
    "benchmark/sac/sac_mujoco.json": ["sac_mujoco", "sac_humanoid"],
    "benchmark/sac/sac_atari.json": ["sac_atari"],
    "benchmark/async_sac/async_sac_pendulum.json": ["async_sac_pendulum"],
    "benchmark/async_sac/async_sac_mujoco.json": ["async_sac_mujoco", "async_sac_humanoid"],
    "benchmark/async_sac/async_sac_atari.json": ["async_sac_atari"],
    "benchmark/td3/td3_pendulum.json": ["td3_pendulum"],
    "benchmark/td3/td3_lunar.json": ["td3_lunar_continuous"],
    "benchmark/td3/td3_mujoco.json": ["td3_mujoco"],
    "benchmark/crossq/crossq_cartpole.json": ["crossq_cartpole"],
    "benchmark/crossq/crossq_acrobot.json": ["crossq_acrobot"],
    "benchmark/crossq/crossq_pendulum.json": ["crossq_pendulum"],
    "benchmark/crossq/crossq_lunar.json": ["crossq_lunar", "crossq_lunar_continuous"],
    "benchmark/crossq/crossq_mujoco.json": ["crossq_mujoco", "crossq_humanoid"],
    "benchmark/crossq/crossq_atari.json": ["crossq_atari"],
}
"""File -> specs that commands in the documentation name."""

COMPARABLE = {
    "CartPole-v1": [(200_000, 4, 500)],
    "Acrobot-v1": [(300_000, 4, 500)],
    "Pendulum-v1": [(300_000, 4, 500), (300_000, 8, 500)],
    "LunarLander-v3": [(300_000, 8, 1_000)],
    "LunarLanderContinuous-v3": [(300_000, 8, 1_000)],
}
"""Environment -> frames, environments and log frequency behind the published scores (A2C on Pendulum: 8 for 4)."""

GENERIC = [
    ("benchmark/a2c/a2c_gae_mujoco.json", "a2c_gae_mujoco"),
    ("benchmark/a2c/a2c_nstep_mujoco.json", "a2c_nstep_mujoco"),
    ("benchmark/ppo/ppo_mujoco.json", "ppo_mujoco"),
    ("benchmark/reinforce/reinforce_mujoco.json", "reinforce_mujoco"),
    ("benchmark/sil/sil_mujoco.json", "sil_mujoco"),
    ("benchmark/sil/ppo_sil_mujoco.json", "ppo_sil_mujoco"),
    ("benchmark/a3c/a3c_mujoco.json", "a3c_mujoco"),
    ("benchmark/dppo/dppo_mujoco.json", "dppo_mujoco"),
    ("benchmark/sac/sac_mujoco.json", "sac_mujoco"),
    ("benchmark/async_sac/async_sac_mujoco.json", "async_sac_mujoco"),
    ("benchmark/td3/td3_mujoco.json", "td3_mujoco"),
    ("benchmark/crossq/crossq_mujoco.json", "crossq_mujoco"),
]
"""Specs for any environment of MuJoCo."""

GENERIC_ATARI = [
    ("benchmark/a2c/a2c_gae_atari.json", "a2c_gae_atari"),
    ("benchmark/ppo/ppo_atari.json", "ppo_atari"),
    ("benchmark/dqn/dqn_atari.json", "dqn_atari"),
    ("benchmark/dqn/dqn_atari.json", "ddqn_per_atari"),
    ("benchmark/rainbow/rainbow_atari.json", "rainbow_atari"),
    ("benchmark/reinforce/reinforce_atari.json", "reinforce_atari"),
    ("benchmark/sil/sil_atari.json", "sil_atari"),
    ("benchmark/sil/ppo_sil_atari.json", "ppo_sil_atari"),
    ("benchmark/a3c/a3c_atari.json", "a3c_atari"),
    ("benchmark/dppo/dppo_atari.json", "dppo_atari"),
    ("benchmark/sarsa/sarsa_atari.json", "sarsa_atari"),
    ("benchmark/sac/sac_atari.json", "sac_atari"),
    ("benchmark/async_sac/async_sac_atari.json", "async_sac_atari"),
    ("benchmark/crossq/crossq_atari.json", "crossq_atari"),
]
"""Specs for any game of Atari."""


def each_of(specs: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """Run a test for each (file, name)."""
    ids = [f"{Path(file).stem}-{name}" for file, name in specs]
    return pytest.mark.parametrize(("file", "name"), specs, ids=ids)


every_spec = each_of(SHIPPED)
every_benchmark = each_of([(file, name) for file, name in SHIPPED if file.startswith("benchmark/")])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nets this small are quicker without the others, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("file", "names"), PROMISED.items())
def test_specs_are_where_the_documentation_says(file: str, names: list[str]) -> None:
    assert {name for listed, name in SHIPPED if listed == file} >= set(names)


@every_spec
def test_a_spec_survives_being_saved(file: str, name: str) -> None:
    spec = load_spec(file, name)
    again = Spec.from_dict(name, json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.hash == spec.hash


@every_spec
def test_a_spec_is_of_this_version(file: str, name: str) -> None:
    """No key of it is unread, and none is read as another."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    load_spec(file, name)
    logger.remove(sink)
    assert lines == []


@every_spec
def test_schedules_end_with_the_run(file: str, name: str) -> None:
    spec = load_spec(file, name)
    scheduler = spec.agent.net.lr_scheduler_spec
    assert scheduler is None or scheduler["frame"] == spec.env.max_frame
    for key in ("explore_var_spec", "entropy_coef_spec", "clip_eps_spec"):
        var = getattr(spec.agent.algorithm, key, None)
        assert var is None or (var.end_step or 0) <= spec.env.max_frame, key


@every_spec
def test_a_run_has_a_curve(file: str, name: str) -> None:
    spec = load_spec(file, name)
    assert spec.env.max_frame >= 10 * spec.meta.log_frequency


@every_benchmark
def test_benchmarks_run_as_the_published_ones_did(file: str, name: str) -> None:
    spec = load_spec(file, name)
    assert spec.meta.max_session == 4
    workers = spec.meta.max_session if spec.meta.distributed else 1
    settings = (spec.env.max_frame, spec.env.num_envs * workers, spec.meta.log_frequency)
    if spec.env.name in COMPARABLE:
        assert settings in COMPARABLE[spec.env.name]
    else:
        assert settings[1:] == (16, 10_000)


@pytest.mark.parametrize("name", PROMISED["cont_test.json"])
def test_test_runs_are_short(name: str) -> None:
    spec = load_spec("cont_test.json", name)
    assert spec.env.max_frame <= 50_000
    assert spec.meta.max_session == 1
    assert (spec.env.num_envs == 1) == name.endswith("_single")


@each_of(GENERIC)
def test_generic_specs_take_environment_and_frames(file: str, name: str) -> None:
    assert load_spec(file, name).env.name == "HalfCheetah-v5"
    spec = load_spec(file, name, ["env=Hopper-v5", "max_frame=4e6"])
    assert spec.name == f"{name}_hopper"
    assert spec.env.name == "Hopper-v5"
    assert spec.env.max_frame == 4_000_000
    assert (spec.agent.net.lr_scheduler_spec or {"frame": 4_000_000})["frame"] == 4_000_000


@each_of(GENERIC_ATARI)
def test_atari_specs_take_game_and_frames(file: str, name: str) -> None:
    assert load_spec(file, name).env.name == "ALE/Pong-v5"
    spec = load_spec(file, name, ["env=ALE/Breakout-v5", "max_frame=2e6"])
    assert spec.name == f"{name}_breakout"
    assert spec.env.name == "ALE/Breakout-v5"
    assert spec.env.max_frame == 2_000_000
    assert (spec.agent.net.lr_scheduler_spec or {"frame": 2_000_000})["frame"] == 2_000_000


@each_of([("demo.json", "dqn_cartpole"), ("benchmark/ppo/ppo_pong.json", "ppo_pong")])
def test_an_environment_for_a_spec_that_has_its_own_is_an_error(file: str, name: str) -> None:
    with pytest.raises(SpecError, match="env"):
        load_spec(file, name, ["env=Hopper-v5"])


FEW = {"training_start_step": 64, "training_iter": 2, "training_epoch": 1}
FEW_IMAGES = FEW | {"training_frequency": 8, "time_horizon": 8, "minibatch_size": 8}


def smaller(file: str, name: str) -> Spec:
    """A spec that learns within a second: the nets are as they are, but they see less."""
    spec = load_spec(file, name)
    algorithm, images = spec.agent.algorithm, spec.env.name.startswith("ALE/")
    sets: dict[str, int] = {"env.num_envs": 2, "env.max_t": 8} if images else {}
    for key, most in (FEW_IMAGES if images else FEW).items():
        if key in type(algorithm).model_fields:
            sets[f"agent.algorithm.{key}"] = min(getattr(algorithm, key) or most, most)
    return load_spec(file, name, sets)


@every_spec
@pytest.mark.usefixtures("one_thread")
def test_a_spec_trains(file: str, name: str) -> None:
    """It fits its environment, and its first two training events end in finite numbers."""
    assert learn(smaller(file, name)).opt_steps >= 2
