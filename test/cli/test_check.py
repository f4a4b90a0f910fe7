"""`slm-lab check` and `slm-lab list`."""

import atexit
import gc
import json
from pathlib import Path

import pytest

from slm_lab.cli import main
from slm_lab.cli.check import human
from slm_lab.experiment import measure as module
from slm_lab.experiment.measure import free_memory, measure
from slm_lab.spec import load_spec

PPO_CONV = {
    "agent": {
        "name": "x",
        "algorithm": {
            "name": "PPO",
            "gamma": 0.99,
            "lam": 0.95,
            "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
            "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01},
            "time_horizon": 16,
            "minibatch_size": 32,
            "training_epoch": 1,
        },
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": {
            "type": "ConvNet",
            "shared": True,
            "conv_hid_layers": [[8, 8, 4, 0, 1]],
            "fc_hid_layers": [16],
            "hid_layers_activation": "relu",
            "init_fn": "orthogonal_",
            "normalize": True,
        },
    },
    "env": {"name": "ALE/Pong-v5", "num_envs": 4, "max_frame": 1e6},
    "meta": {"max_session": 1},
}


def test_sizes_of_a_dqn(spec_file):
    # CartPole has 4 numbers and 2 actions: (4 + 1) * 8 + (8 + 1) * 2
    assert measure(load_spec(spec_file, "tiny")).parameters == {"net": 58, "target_net": 58}


def test_sizes_of_a_ppo_on_images(tmp_path):
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"x": PPO_CONV}))
    size = measure(load_spec(file, "x"))
    # 4 frames of 84x84; convolution 8 of 8x8 with stride 4 -> 20x20; dense 16; heads of 6 actions and a value
    conv, dense, heads = 8 * (4 * 64 + 1), 16 * (8 * 400 + 1), 17 * 7
    assert size.parameters == {"net": conv + dense + heads}
    # 16 steps of 4 environments: at least an image and what belongs to it, at most a few rows more
    rows = 16 * 4
    assert rows * 28224 < size.memory_bytes < (rows + 8) * (28224 + 32)


def test_what_is_measured_is_what_a_run_has(spec_file, run_folder):
    from slm_lab.agent import Agent
    from slm_lab.env import make_env

    spec = load_spec(spec_file, "tiny")
    env = make_env(spec.env, 0)
    agent = Agent(spec, env, 0)
    size = measure(spec)
    assert size.memory_bytes == agent.algorithm.memory.nbytes
    for name, net in agent.algorithm.modules.items():
        assert size.parameters[name] == sum(parameter.numel() for parameter in net.parameters())


def test_check_prints_the_resolved_spec_and_its_sizes(spec_file, capsys):
    assert main(["check", spec_file, "tiny", "-s", "env.max_frame=1e3"]) == 0
    out = capsys.readouterr().out
    resolved, end = json.JSONDecoder().raw_decode(out)
    assert resolved == {"tiny": load_spec(spec_file, "tiny", ["env.max_frame=1000"]).to_dict()}
    summary = out[end:]
    assert "net: 58 parameters" in summary
    assert "a session, 1 at once" in summary
    assert "free" in summary


def test_a_check_looks_for_no_garbage_nor_does_the_end_of_its_process(spec_file, monkeypatch):
    looking, at_the_end = [], []
    monkeypatch.setattr(module, "measure", lambda spec: looking.append(gc.isenabled()) or measure(spec))
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    assert main(["check", spec_file, "tiny"]) == 0
    assert (looking, at_the_end, gc.isenabled()) == ([False], [gc.freeze], True)
    assert main(["check", spec_file, "nobody"]) == 2
    assert gc.isenabled()


def test_a_memory_that_does_not_fit_is_refused_with_one_that_does(spec_file, capsys):
    words = ["check", spec_file, "tiny", "-s", "agent.memory.max_size=1e13", "-s", "env.max_frame=1e14"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "agent.memory" in error
    assert len(error.splitlines()) == 1
    fits = int(error.split("a max_size of ")[1].split()[0].replace(",", ""))
    assert main([*words, "-s", f"agent.memory.max_size={fits // 2}"]) == 0


def test_an_unknown_optimiser_or_environment_is_found(spec_file, capsys):
    assert main(["check", spec_file, "-s", "agent.net.optim_spec.name=Adamant"]) == 2
    assert "Adamant" in capsys.readouterr().err
    assert main(["check", spec_file, "-s", "env=CartPool-v1"]) == 2
    assert "CartPool-v1" in capsys.readouterr().err


def test_check_all_has_a_line_per_spec(spec_file, tmp_path, capsys):
    tiny = Path(spec_file).read_text()
    (tmp_path / "a.json").write_text(tiny)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.json").write_text(tiny.replace('"tiny"', '"other"').replace("gamma", "gama"))
    (tmp_path / "c.yaml").write_text("- not\n- a spec\n")
    (tmp_path / "_ignored.json").write_text("[]")
    assert main(["check", "--all", str(tmp_path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"good  {tmp_path / 'a.json'} tiny"
    assert lines[1].startswith(f"bad   {tmp_path / 'c.yaml'}")
    assert lines[2].startswith(f"bad   {tmp_path / 'deep' / 'b.json'} other: ")
    assert "gama" in lines[2]
    assert lines[3:] == ["1 good, 2 bad"]


def test_check_all_of_a_good_file_is_exit_code_0(spec_file, capsys):
    # -s goes to those that have the variable
    assert main(["check", "--all", spec_file, "-s", "env=Acrobot-v1", "-s", "nobody=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 good, 0 bad"


def test_list_shows_what_ships(capsys):
    assert main(["list"]) == 0
    every = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["demo.json", "dqn_cartpole"] for line in every)
    assert main(["list", "PPO"]) == 0
    some = capsys.readouterr().out.splitlines()
    assert 0 < len(some) < len(every)
    assert all("ppo" in line.lower() for line in some)


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (2_500_000, "2.5 MB"), (7e16, "70000.0 TB")]
)
def test_human(nbytes, text):
    assert human(nbytes) == text


def test_free_memory_respects_the_limit_of_a_container(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    assert free_memory() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 600_000
