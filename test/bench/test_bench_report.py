"""The document is made from what was measured."""

import json

import pytest

from bench.__main__ import main
from bench.flops import flops_per_step
from bench.report import BEGIN, END, document, fastest, render, table_of
from bench.works import WORKS


def rounds(*fps):
    memory = 300 * 2**20
    return [{"fps": each, "steps": each and each / 64, "first": 1.5, "memory": memory, "error": None} for each in fps]


def entry(*fps, threads=1, error=None):
    return {
        "threads": threads,
        "tried": {"1": fps[0]} if fps else {},
        "first_cold": 4.0,
        "rounds": rounds(*fps),
        "error": error,
    }


@pytest.fixture
def measured():
    sides = {
        "lab": entry(4000.0, 8000.0, 6000.0),
        "sb3": entry(1000.0, 2000.0, 2000.0),
        "eager": entry(500.0, 4000.0, None, threads=2),
        "tianshou": entry(threads=None, error="not installed") | {"first_cold": None},
    }
    machine = {
        "system": "Linux",
        "processor": "A processor",
        "cores": 2,
        "memory": 2**34,
        "python": "3.11.7",
        "matrix": {"float32": 4e11},
        "load": 0.1,
    }
    machine |= {"versions": {"torch": "2.13.0"}, "git_commit": "abc123"}
    setup = {"seconds": 10.0, "warmup": 3.0, "rounds": 3, "precision": "float32"}
    return {
        "made": "2026-01-02T03:04:05+00:00",
        "machine": machine,
        "setup": setup,
        "works": {"ppo_cartpole": {"sides": sides}},
    }


def cells(text, first):
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_ratio_is_the_median_over_rounds_to_the_fastest_of_each(measured):
    row = cells(render(measured), "PPO CartPole-v1")
    assert row[1:] == ["6,000", "single file, eager", "2,250", "4.00, 2.00, 3.00", "3.00", "≥ 3.5"]


def test_every_side_has_a_row_and_who_did_not_run_a_reason(measured):
    text = render(measured)
    assert cells(text, "stable-baselines3")[1:5] == ["1", "2,000", "1,000, 2,000, 2,000", "4.00"]
    assert cells(text, "single file, eager")[1:3] == ["2", "2,250"]
    assert cells(text, "SLM Lab")[-2:] == ["1.5 (4.0)", "300"]
    steps = 6000 / 64  # per second, each 256 rows through two nets
    gflops = steps * 2 * 256 * (3 * (4 * 64 + 64 * 64) * 2 + 3 * 64 * 3 - 2 * 4 * 64) / 1e9
    assert cells(text, "SLM Lab")[5:7] == [f"{gflops:.1f}", f"{gflops / 400:.0%}"]
    assert "- tianshou: not installed" in text


def test_without_a_peer_there_is_no_ratio(measured):
    sides = measured["works"]["ppo_cartpole"]["sides"]
    for name in ("sb3", "eager"):
        sides[name]["rounds"] = []
    assert fastest(sides) is None
    assert cells(render(measured), "PPO CartPole-v1")[2:6] == ["–"] * 4


def test_what_stands_outside_of_the_marks_is_kept(measured):
    first = document([measured])
    edited = first.replace("# Performance", "# Performance, and a remark").rstrip() + "\n\nMore by hand.\n"
    measured["machine"]["git_commit"] = "def456"
    second = document([measured, measured], edited)
    assert second.startswith("# Performance, and a remark")
    assert second.endswith("More by hand.\n")
    assert "abc123" not in second
    assert second.count("def456") == 2
    assert second.count(BEGIN) == second.count(END) == 1


def test_the_command_writes_the_document(measured, tmp_path):
    file, output = tmp_path / "run.json", tmp_path / "PERFORMANCE.md"
    file.write_text(json.dumps(measured))
    assert main(["report", str(file), "-o", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    assert "A processor, 2 cores, 16 GiB" in text
    assert "| PPO CartPole-v1 | 6,000" in text


@pytest.mark.parametrize("words", [["ppo_pang"], ["--peers", "sb4"], ["--precision", "float16"]])
def test_bad_input_is_said(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert words[-1] in capsys.readouterr().err


def test_arithmetic_of_the_works():
    """What is known of them: 0.58 GFLOP for an update of SAC, 0.2 GFLOP for four epochs of the Nature CNN a frame."""
    assert flops_per_step(WORKS["sac_halfcheetah"]) == pytest.approx(0.58e9, rel=0.02)
    pong = WORKS["ppo_pong"]
    per_frame = flops_per_step(pong) * pong.steps_per_event / (pong.num_envs * pong.horizon)
    assert per_frame == pytest.approx(0.198e9, rel=0.02)


def test_tables_are_aligned():
    assert table_of(["a", "long"], [["wider", "b"]]).splitlines() == [
        "| a     | long |",
        "| ----- | ---- |",
        "| wider | b    |",
    ]
