"""Finding files and specs, -s, spec_params, and how light it all is."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest

from slm_lab.spec import SpecError, list_specs, load_spec, load_specs, spec_names
from slm_lab.spec.loader import LIBRARY, combinations

RANDOM = {
    "agent": {"algorithm": {"name": "Random"}},
    "env": {"name": "${env:-CartPole-v1}", "max_frame": "${max_frame:-1000}"},
    "meta": {"max_session": 4},
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="specs.json"):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


@pytest.mark.parametrize(
    "file", ["demo.json", "slm_lab/spec/demo.json", "./slm_lab/spec/demo.json", LIBRARY / "demo.json"]
)
def test_a_shipped_file_is_found_from_anywhere(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_spec(file, "dqn_cartpole").agent.algorithm.name == "DQN"


def test_a_file_that_is_there_comes_before_a_shipped_one(write, tmp_path, monkeypatch):
    write({"mine": RANDOM}, "demo.json")
    monkeypatch.chdir(tmp_path)
    assert spec_names("demo.json") == ["mine"]


def test_the_only_spec_of_a_file_needs_no_name(write):
    assert load_spec(write({"$schema": "x", "_shared": [], "only": RANDOM})).name == "only"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("demo.jsn", r"^demo\.jsn: no such file; did you mean 'demo\.json'\?$"),
        ("ppo_cartpole.json", r"did you mean 'benchmark/ppo/ppo_cartpole\.json'\?$"),
        ("qqqqqqq.txt", r"^qqqqqqq\.txt: no such file; `slm-lab list` shows what ships$"),
        (".", r"^\.: is a folder"),
    ],
)
def test_no_such_file(file, message):
    with pytest.raises(SpecError, match=message):
        load_spec(file)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            {"ppo_cartpole": RANDOM, "b": RANDOM},
            "ppo_cartpol",
            r"has no spec 'ppo_cartpol'; did you mean 'ppo_cartpole'\?",
        ),
        ({"a": RANDOM, "b": RANDOM}, None, "say which of its 2 specs you mean: a, b$"),
        ({"_a": RANDOM}, None, "holds no specs"),
        ({"a": [RANDOM]}, None, "a: must be a spec, an object with agent, env and meta$"),
        ([], None, r"must hold \{spec_name: spec\}, not list$"),
        ("{", None, "specs.json: line 1, column 2: not JSON"),
    ],
)
def test_a_file_without_that_spec(write, content, name, message):
    with pytest.raises(SpecError, match=message):
        load_spec(write(content), name)


def test_yaml(write):
    spec = load_spec(
        write(
            "_env: &env {name: CartPole-v1, max_frame: 1e3}\nx:\n  agent: {algorithm: {name: Random}}\n  env: *env\n",
            "x.yml",
        )
    )
    assert spec.env.max_frame == 1000


def test_a_spec_as_an_older_lab_saved_it(write):
    spec = load_spec(write(RANDOM | {"name": "mine"}))
    assert spec.name == "mine"


def test_the_saved_spec_of_a_run_loads_as_the_same(write):
    spec = load_spec("benchmark/ppo/ppo_mujoco.json", "ppo_mujoco", ["env=Hopper-v5", "meta.seed=7"])
    again = load_spec(write({spec.name: spec.to_dict()}), spec.name)
    assert again == spec
    assert again.hash == spec.hash


def test_variables_are_filled_and_the_environment_is_named(write):
    file = write({"x": RANDOM})
    assert load_spec(file).name == "x"
    spec = load_spec(file, "x", ["env=ALE/Pong-v5", "max_frame=1e7"])
    assert (spec.name, spec.env.name, spec.env.max_frame) == ("x_pong", "ALE/Pong-v5", 10_000_000)
    assert load_spec(file, "x", {"env": "my_package.envs:MyEnv-v0"}).name == "x_myenv"
    assert load_spec(file, "x", {"env": "playground/CartpoleBalance"}).name == "x_cartpolebalance"


def test_dotted_keys_are_paths(write):
    spec = load_spec(write({"x": RANDOM}), "x", ["env.max_frame=2000", "meta.max_session=1", "env.name=CartPole-v0"])
    assert (spec.env.max_frame, spec.meta.max_session, spec.env.name, spec.name) == (2000, 1, "CartPole-v1", "x")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["max_session=1"], r"^-s max_session: the spec has no \$\{max_session\}; write -s meta\.max_session=1$"),
        (["evn=x"], r"^-s evn: the spec has no \$\{evn\} \(it has env, max_frame\); a key with a dot is a path"),
        (["env.max_fram=1"], r"^env\.max_fram: unknown key; did you mean 'max_frame'\?"),
        (["env=[]"], r"^env\.name: must be text, got \[\]$"),
        (["agent=DQN"], r"^-s agent: agent is an object; set what is in it, as in -s agent\."),
        (["agent.foo.bar=1"], r"^agent\.foo: unknown key"),
        (["env.name.x=1"], r"^-s env\.name\.x: there is nothing called 'x' in env\.name$"),
    ],
)
def test_a_set_without_effect(write, sets, message):
    with pytest.raises(SpecError, match=message):
        load_spec(write({"x": RANDOM}), "x", sets)


def test_spec_params_span_a_grid(write):
    raw = deepcopy(RANDOM) | {"spec_params": {"env": ["Ant-v5", "ALE/Pong-v5"], "max_frame": [100, 200]}}
    raw["env"] = {"name": "${env}", "max_frame": "${max_frame}"}
    file = write({"x": raw})
    assert [(spec.name, spec.env.name, spec.env.max_frame) for spec in load_specs(file)] == [
        ("x_ant_100", "Ant-v5", 100),
        ("x_ant_200", "Ant-v5", 200),
        ("x_pong_100", "ALE/Pong-v5", 100),
        ("x_pong_200", "ALE/Pong-v5", 200),
    ]
    with pytest.raises(SpecError, match=r"^spec_params: stands for 4 specs; pick one with -s, .*x_ant_100"):
        load_spec(file)
    # what is picked is named as in a batch
    assert load_spec(file, "x", ["env=Ant-v5", "max_frame=5"]).name == "x_ant_5"
    assert [spec.name for spec in load_specs(file, "x", ["env=Hopper-v5"])] == ["x_hopper_100", "x_hopper_200"]
    for pick, spec in zip(combinations(file), load_specs(file), strict=True):
        assert load_spec(file, "x", pick) == spec


def test_spec_params_of_one_value_need_no_choice(write):
    raw = deepcopy(RANDOM) | {"spec_params": {"env": ["Ant-v5"]}}
    assert load_spec(write({"x": raw})).name == "x_ant"


@pytest.mark.parametrize("params", [["env"], {"env": "Ant-v5"}, {"env": []}])
def test_spec_params_of_another_shape(write, params):
    with pytest.raises(SpecError, match=r"^spec_params: must be \{name: \[value, …\]\}$"):
        load_spec(write({"x": RANDOM | {"spec_params": params}}))


def test_the_list_is_narrowed_by_a_word():
    assert {listed.name for listed in list_specs("demo")} == {"dqn_cartpole", "ppo_cartpole_search"}
    assert all("PPO" in listed.summary for listed in list_specs("ppo on"))
    assert list_specs("no such words") == []


def test_checking_a_spec_imports_nothing_heavy():
    code = """
import sys
import slm_lab.spec
assert "pydantic" not in sys.modules
slm_lab.spec.load_spec("demo.json")
print([name for name in ("torch", "numpy", "gymnasium", "pandas", "plotly", "yaml", "loguru") if name in sys.modules])
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


ARC = {
    "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": "${width:-64}"}}]}},
    "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
}


def with_arc_file(key="arc_file", **net):
    a2c = {"name": "ActorCritic", "gamma": 0.9, "lam": 0.9, "training_frequency": 8}
    agent = {"algorithm": a2c, "memory": {"name": "OnPolicyBatchReplay"}}
    return RANDOM | {"agent": agent | {"net": {"type": "TorchArcNet", key: "arcs/mine.json", **net}}}


def width_of(arc):
    return arc["modules"]["body"]["Sequential"][0]["LazyLinear"]["out_features"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_arc_of_a_file_becomes_part_of_the_spec(write, tmp_path, monkeypatch, elsewhere):
    (tmp_path / "arcs").mkdir()
    write(ARC, "arcs/mine.json")
    file = write({"a": with_arc_file()}, "specs.json")
    if elsewhere:  # beside the spec's file, or in the working directory
        (tmp_path / "specs").mkdir()
        file = file.rename(tmp_path / "specs" / "specs.json")
        monkeypatch.chdir(tmp_path)
    spec = load_spec(file)
    assert width_of(spec.agent.net.arc) == 64
    assert "arc_file" not in spec.to_dict()["agent"]["net"]
    assert width_of(load_spec(file, "a", ["width=32"]).agent.net.arc) == 32


def test_a_role_has_an_arc_file_of_its_own(write, tmp_path):
    (tmp_path / "arcs").mkdir()
    write(ARC, "arcs/mine.json")
    plain = json.loads(json.dumps(ARC).replace('"${width:-64}"', "16"))
    net = load_spec(write({"a": with_arc_file("critic_arc_file", arc=plain)})).agent.net
    assert [width_of(net.for_role(role).arc) for role in ("actor", "critic")] == [16, 64]


def test_the_arc_file_may_be_given_on_the_command_line(write, tmp_path):
    (tmp_path / "arcs").mkdir()
    write(ARC, "arcs/other.json")
    file = write({"a": with_arc_file()})
    sets = ["agent.net.arc_file=arcs/other.json", "width=8"]
    assert width_of(load_spec(file, "a", sets).agent.net.arc) == 8
