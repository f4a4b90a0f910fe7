"""A session from the first frame to the last."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from lab_runs import CONV, begin, make_spec, newest, rows, run_and_stop, run_session, same
from threadpoolctl import threadpool_info

from slm_lab.experiment.lock import only_one
from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.profiling import bottleneck
from slm_lab.experiment.session import Session
from slm_lab.lib.files import read_rows
from slm_lab.spec import Spec, SpecError


@pytest.mark.parametrize("algorithm", ["PPO", "Reinforce", "DoubleDQN"])
def test_spec_and_seed_determine_every_bit(tmp_path, algorithm):
    spec, other = make_spec(algorithm, max_frame=600), make_spec(algorithm, max_frame=600, meta={"seed": 8})
    once, twice, otherwise = (
        begin(tmp_path / name, each) for name, each in zip("abc", (spec, spec, other), strict=True)
    )
    for each, paths in ((spec, once), (spec, twice), (other, otherwise)):
        run_session(each, paths)
    assert rows(once) == rows(twice)
    assert same(newest(once)[1]["net"], newest(twice)[1]["net"])
    assert rows(once) != rows(otherwise)
    assert not same(newest(once)[1]["net"], newest(otherwise)[1]["net"])


def test_sessions_of_a_trial_differ(tmp_path):
    spec = make_spec(max_frame=400)
    paths = begin(tmp_path, spec)
    for index in (0, 1):
        run_session(spec, paths, index)
    assert not same(newest(paths, 0)[1]["net"], newest(paths, 1)[1]["net"])


def test_rows_come_at_multiples_of_log_frequency_and_at_the_end(tmp_path):
    spec = make_spec("DoubleDQN", num_envs=3, max_frame=700, meta={"log_frequency": 250})
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    assert [row["frame"] for row in rows(paths)] == ["252", "501", "702"]
    assert newest(paths)[0] == 702


def test_the_shares_of_the_time_add_up(tmp_path):
    spec = make_spec(max_frame=400)
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    table = read_rows(paths.for_session(0).session_df("train"))
    total = sum(table[f"time_{phase}"] for phase in ("env", "act", "memory", "learn"))
    assert total == pytest.approx([1.0, 1.0], abs=1e-3)
    assert (table["fps"] > 0).all()


@pytest.mark.parametrize(
    ("algorithm", "keys", "threads"),
    [
        ("PPO", {}, 1),
        ("DoubleDQN", {"net": {"hid_layers": [768, 768]}}, 2),  # batches of 16
        ("PPO", {"net": {"hid_layers": [1024, 1024]}}, 3),  # minibatches of 32
        ("PPO", {"net": CONV, "env": "ALE/Pong-v5"}, 3),
    ],
)
def test_nets_have_the_threads_that_pay(tmp_path, monkeypatch, algorithm, keys, threads):
    seen = []
    monkeypatch.setattr(Session, "_loop", lambda session, profile: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(Session, "_save", lambda session: None)
    spec, before = make_spec(algorithm, max_frame=400, **keys), torch.get_num_threads()
    Session(spec, begin(tmp_path, spec).for_session(0), threads=3).run()
    torch.set_num_threads(before)
    assert seen == [threads]


def test_the_last_report_knows_the_speed(tmp_path):
    reports = []
    spec = make_spec(max_frame=400)
    run_session(spec, begin(tmp_path, spec), report=lambda *report: reports.append(report))
    frame, fps, total_reward = reports[-1]
    assert frame == 400
    assert fps > 1
    assert total_reward > 1


def test_a_run_in_which_no_episode_ends_has_rows_and_weights_to_play(tmp_path):
    spec = make_spec(env="odd_envs:Walk", ends=False, max_frame=400)
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    assert [row["total_reward"] for row in rows(paths)] == ["", ""]
    frame, best = newest(paths, kind="ckpt-best")
    assert frame == 400
    assert best["score"] == {"total_reward": None}
    assert same(best["net"], newest(paths)[1]["net"])


def test_numbers_too_small_to_matter_are_zero_while_it_trains(tmp_path, monkeypatch):
    seen, spec = [], make_spec(max_frame=400)
    tiny, loop = torch.tensor([1e-40]), Session._loop

    def watched(session, profile):
        seen.append((tiny * 1.0).item())
        loop(session, profile)

    monkeypatch.setattr(Session, "_loop", watched)
    Session(spec, begin(tmp_path, spec).for_session(0)).run()
    assert seen == [0.0]
    assert (tiny * 1.0).item() > 0


def test_the_best_weights_are_those_of_the_best_row(tmp_path):
    spec = make_spec("DoubleDQN", max_frame=2000)
    paths = begin(tmp_path, spec)
    run_session(spec, paths)
    scores = {int(row["frame"]): float(row["total_reward"]) for row in rows(paths)}
    frame, best = newest(paths, kind="ckpt-best")
    assert scores[frame] == max(scores.values()) == best["score"]["total_reward"]
    assert len(list(paths.model_dir.glob("*ckpt-best*"))) == 1


def test_the_best_of_a_course_that_was_left_does_not_outlive_a_better_one(tmp_path):
    spec = make_spec()
    session = Session(spec, begin(tmp_path, spec).for_session(0))
    session.run()
    best = session.best_checkpoints
    best.save(5000, {"score": {"total_reward": 1.0}})  # of a process that was killed before its next checkpoint
    best.save(1200, {"score": {"total_reward": 2.0}})
    assert best.load()[0] == 1200


def test_a_second_process_is_refused(tmp_path, monkeypatch):
    spec = make_spec()
    paths = begin(tmp_path, spec)
    # it would wait for ten seconds
    monkeypatch.setattr(
        "slm_lab.experiment.session.only_one", lambda file, paths, timeout: only_one(file, paths, timeout / 100)
    )
    with (
        only_one(paths.log_dir / ".tiny_t0_s0.lock", paths),
        pytest.raises(SpecError, match="another process is at work on this run"),
    ):
        run_session(spec, paths)
    assert run_session(spec, paths).finished


def test_dev_mode_shows_gradients_and_tensorboard(tmp_path, log_messages):
    spec = make_spec(max_frame=400)
    paths = begin(tmp_path, spec)
    run_session(spec, paths, mode="dev")
    assert all(math.isfinite(float(row["grad_norm"])) for row in rows(paths))
    assert list(paths.log_dir.glob("events.out.tfevents.*"))
    assert not any("no parameter of" in line for line in log_messages)


def test_dev_mode_warns_of_nets_that_do_not_learn(tmp_path, log_messages):
    spec = make_spec(max_frame=400, net={"optim_spec": {"name": "Adam", "lr": 1e-30}})
    run_session(spec, begin(tmp_path, spec), mode="dev")
    assert any("no parameter of net has changed" in line for line in log_messages)


def test_dev_mode_does_not_warn_of_a_net_whose_turn_has_not_come(tmp_path, log_messages):
    session = Session(make_spec(max_frame=400), begin(tmp_path, make_spec()).for_session(0), mode="dev")
    session._build()
    waits, (name, learner) = session._weights_at_start, next(iter(session.agent.algorithm.learners.items()))
    session.clock.opt_step = 1
    session._check_weights()
    assert name in waits
    assert not log_messages
    learner.opt_steps = 2
    session._check_weights()
    session._check_weights()
    session._close()
    assert name not in waits
    assert [line.strip() for line in log_messages] == [
        f"no parameter of {name} has changed after 2 optimiser steps",
    ]


def test_the_last_speed_told_is_the_mean(tmp_path):
    spec = make_spec(max_frame=400, meta={"log_frequency": 396})
    speeds = []
    session = run_session(spec, begin(tmp_path, spec), report=lambda frame, fps, total_reward: speeds.append(fps))
    # the last row is about a single step, in which nothing was learned; to load and to save are no part of it
    assert sum(session._spent_in_all.values()) < 400 / speeds[-1] < session.clock.elapsed


SHORT_RUN = """
import sys
from pathlib import Path

from slm_lab.experiment.options import RunOptions
from slm_lab.experiment.paths import new_run
from slm_lab.experiment.session import Session
from slm_lab.spec import load_spec

file, name, torch_compile, folder = sys.argv[1:]
sets = ["env.max_frame=4000"] + ["agent.algorithm.training_start_step=100"] * ("ppo" not in name)
sets += ["agent.algorithm.training_epoch=1"] * ("pong" in name)
spec = load_spec(file, name, sets).with_meta(seed=0)
session = Session(spec, new_run(Path(folder), name).for_session(0), options=RunOptions(torch_compile=torch_compile))
session.run()
assert session.agent.opt_steps > 2
assert session.agent.in_numpy == (torch_compile == "auto")
print(*{"torch._dynamo", "torch._inductor", "sympy"} & sys.modules.keys())
"""


@pytest.mark.parametrize(
    ("name", "torch_compile"),
    [
        ("ppo/ppo_cartpole", "false"),
        ("ppo/ppo_pong", "false"),
        ("ppo/ppo_pendulum", "auto"),
        ("dqn/dqn_cartpole", "auto"),
        ("sac/sac_pendulum", "auto"),
        ("dqn/dqn_cartpole", "true"),  # it is at work in another process
    ],
)
def test_a_session_does_not_import_the_compiler(tmp_path, name, torch_compile):
    """It takes 70 MB, and a second."""
    args = [f"benchmark/{name}.json", name.split("/")[1], torch_compile, str(tmp_path)]
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", SHORT_RUN, *args], capture_output=True, text=True, check=False, env=env)
    assert (ran.stdout.strip(), ran.returncode) == ("", 0), ran.stderr
    assert any(tmp_path.glob("slm_lab/*.so")) == (torch_compile == "true")


def test_a_profile_shows_the_parts_of_a_step_and_names_the_bottleneck(tmp_path, log_messages):
    spec = make_spec("DoubleDQN", max_frame=400)
    paths = begin(tmp_path, spec)
    run_session(spec, paths, options=RunOptions(profile="cpu"))
    trace = json.loads((paths.log_dir / "profiler" / "tiny_t0_s0_trace.json").read_text())
    marks = {event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"}
    assert {"Agent.act", "CartPoleVecEnv.step", "Agent.observe", "Agent.update"} <= marks
    (line,) = [line for line in log_messages if " % " in line]
    assert re.search(r"session 0: \d\d % (act|env|memory|learn): .*(env\.num_envs|GPU)", line)
    assert line.rstrip().endswith("tiny_t0_s0_trace.json")


def test_a_run_too_short_for_a_trace_says_so(tmp_path, log_messages):
    spec = make_spec("DoubleDQN", max_frame=40)
    run_session(spec, begin(tmp_path, spec), options=RunOptions(profile="cpu"))
    (line,) = [line for line in log_messages if " % " in line]
    assert line.rstrip().endswith("none, as it begins after 4 training events")


def test_a_run_that_compiles_says_why(tmp_path, monkeypatch, log_messages):
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: None)
    spec = make_spec("DoubleDQN", max_frame=40)
    run_session(spec, begin(tmp_path, spec), options=RunOptions(torch_compile="true"))
    assert any("torch.compile: as told" in line for line in log_messages)


def test_the_bottleneck_is_what_took_longest():
    assert bottleneck({"act": 1.0, "env": 6.2, "memory": 0.8, "learn": 2.0}).startswith("62 % env: more environments")
    assert bottleneck({"act": 1.0, "env": 1.0, "memory": 0.0, "learn": 2.0}).startswith("50 % learn: larger batches")


@pytest.mark.parametrize(
    ("mode", "worth", "start", "frames"),
    [
        ("auto", 480, 64, [72]),  # 491 steps are to come, one per 8 frames
        ("auto", 500, 64, []),
        ("auto", 370, 1000, [1008]),  # 374 are to come, though learning began late
        ("auto", 380, 1000, []),
        ("false", 0, 64, []),
        ("true", 10_000, 64, [0]),
    ],
)
def test_a_run_of_many_gradient_steps_is_compiled(tmp_path, monkeypatch, mode, worth, start, frames):
    monkeypatch.setattr("slm_lab.experiment.session.STEPS_TO_COMPILE", worth)
    monkeypatch.setattr("slm_lab.agent.LARGEST_LAYER", 0)
    spec, seen = make_spec("DoubleDQN", max_frame=4000, meta={"log_frequency": 400}).to_dict(), []
    spec["agent"]["algorithm"]["training_start_step"] = start
    spec = Spec.from_dict("tiny", spec)
    session = Session(spec, begin(tmp_path, spec).for_session(0), options=RunOptions(torch_compile=mode))
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: seen.append(session.clock.frame))
    session.run()
    assert seen == frames


@pytest.mark.parametrize(("width", "sooner"), [(128, False), (129, True)])
def test_large_products_are_worth_compiling_sooner(tmp_path, monkeypatch, width, sooner):
    monkeypatch.setattr("slm_lab.experiment.session.LARGE_STEPS_TO_COMPILE", 10)
    monkeypatch.setattr("slm_lab.experiment.session.LARGE_PRODUCT", 16 * 129 * 129)
    monkeypatch.setattr("slm_lab.agent.LARGEST_LAYER", 0)
    spec, seen = make_spec("DoubleDQN", max_frame=400, net={"hid_layers": [width, width]}), []
    assert spec.agent.memory.batch_size == 16
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: seen.append(agent))
    run_session(spec, begin(tmp_path, spec))
    assert bool(seen) == sooner


@pytest.mark.parametrize(
    ("mode", "keys", "by_numpy"),
    [
        ("auto", {}, True),
        ("auto", {"net": {"hid_layers": [129, 128]}}, False),
        ("auto", {"meta": {"precision": "bfloat16"}}, False),
        ("false", {}, False),
        ("true", {}, False),
    ],
)
def test_small_nets_learn_by_numpy(tmp_path, monkeypatch, mode, keys, by_numpy):
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: None)
    monkeypatch.setattr("slm_lab.experiment.session.STEPS_TO_COMPILE", 0)
    spec = make_spec("DoubleDQN", max_frame=200, **keys)
    session = Session(spec, begin(tmp_path, spec).for_session(0), options=RunOptions(torch_compile=mode))
    session.run()
    assert session.agent.in_numpy == by_numpy


def test_numpy_takes_one_thread(tmp_path, monkeypatch):
    spec, seen = make_spec("DoubleDQN", max_frame=200), []

    def look(_agent):
        seen.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})

    monkeypatch.setattr("slm_lab.agent.Agent.use_numpy", look)
    run_session(spec, begin(tmp_path, spec))
    assert seen == [{1}]


def test_a_compiled_run_goes_on_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr("slm_lab.agent.LARGEST_LAYER", 0)
    monkeypatch.setattr("slm_lab.experiment.session.STEPS_TO_COMPILE", 0)
    spec, compiled = make_spec("DoubleDQN", max_frame=2000), []
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: compiled.append(agent))
    paths = begin(tmp_path, spec)
    run_and_stop(spec, paths, 1500)
    assert len(compiled) == 1
    monkeypatch.setattr("slm_lab.experiment.session.STEPS_TO_COMPILE", 10_000)  # it is not judged anew
    run_session(spec, paths)
    assert len(compiled) == 2


@pytest.mark.parametrize(("device", "worth"), [("cuda", True), ("cpu", False)])
def test_convolutions_are_worth_compiling_sooner_on_a_gpu_and_never_on_a_cpu(tmp_path, monkeypatch, device, worth):
    monkeypatch.setattr("slm_lab.experiment.session.CONV_STEPS_TO_COMPILE", 10)
    monkeypatch.setattr("slm_lab.experiment.session.STEPS_TO_COMPILE", 10)
    monkeypatch.setattr("slm_lab.agent.Agent.compile", lambda agent: None)
    spec = make_spec("DoubleDQN", env="ALE/Pong-v5", net=CONV, max_frame=200)
    session = Session(spec, begin(tmp_path, spec).for_session(0))
    session._build()
    session.agent.device = torch.device(device)
    session._judge_compiling()
    session.clock.frame, session.agent.algorithm.learner.opt_steps = 100, 10
    session._judge_compiling()
    session._close()
    assert session.compiled == worth
