"""${variables} and paths."""

import pytest

from slm_lab.spec import SpecError
from slm_lab.spec.variables import fill_variables, find_variables, parse_sets, parse_value, set_path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1_000_000),
        ("1000", 1000),
        ("3e-4", 3e-4),
        ("1.0", 1.0),
        ("true", True),
        ("null", None),
        ("[64, 64]", [64, 64]),
        ('{"name": "Adam"}', {"name": "Adam"}),
        ("relu", "relu"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("", ""),
    ],
)
def test_values(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_sets_are_texts_or_a_mapping():
    assert parse_sets(["env=A=B", "env.max_frame=2e3"]) == {"env": "A=B", "env.max_frame": "2e3"}
    assert parse_sets({"env": "A", "lr": 0.1, "layers": [1, 2], "on": True}) == {
        "env": "A",
        "lr": "0.1",
        "layers": "[1, 2]",
        "on": "true",
    }


@pytest.mark.parametrize("text", ["env", "=1", ""])
def test_a_set_that_sets_nothing(text):
    with pytest.raises(SpecError, match="must be key=value"):
        parse_sets([text])


def test_a_variable_takes_its_value_or_its_default():
    tree = {
        "name": "${env:-Ant-v5}",
        "frames": "${max_frame}",
        "note": "${env:-Ant-v5} for ${max_frame}",
        "list": ["${lr:-}"],
    }
    filled, used = fill_variables(tree, {"max_frame": "1e6", "other": "1"})
    assert filled == {"name": "Ant-v5", "frames": 1_000_000, "note": "Ant-v5 for 1e6", "list": [""]}
    assert used == {"max_frame"}
    assert fill_variables(tree, {"env": "Hopper-v5", "max_frame": "9"})[0]["name"] == "Hopper-v5"


def test_a_value_is_not_looked_through_for_variables():
    assert fill_variables({"a": "${x}"}, {"x": "${y}"})[0] == {"a": "${y}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${env}", r"^env\.name: \$\{env\} has no value; give one with -s env=…$"),
        ("a ${b:-c} ${d}", r"^env\.name: \$\{d\} has no value"),
        ("${env", r"^env\.name: '\$\{env' is no variable; write \$\{name\} or \$\{name:-default\}$"),
        ("${a b}", r"^env\.name: '\$\{a b\}' is no variable"),
    ],
)
def test_a_variable_left_over(text, message):
    with pytest.raises(SpecError, match=message):
        fill_variables({"env": {"name": text}}, {})


def test_variables_in_the_order_of_the_spec():
    assert find_variables({"b": "${y} ${x:-1}", "a": ["${y}"]}) == ["y", "x"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("env.max_frame", {"agent": [{"net": {"hid": [64, 64]}}], "env": {"max_frame": 5}}),
        ("agent.net.hid", {"agent": [{"net": {"hid": 5}}], "env": {}}),
        ("agent.0.net.hid", {"agent": [{"net": {"hid": 5}}], "env": {}}),
        ("env.0.name", {"agent": [{"net": {"hid": [64, 64]}}], "env": {"name": 5}}),
        ("agent.net.hid.1", {"agent": [{"net": {"hid": [64, 5]}}], "env": {}}),
        ("meta.seed", {"agent": [{"net": {"hid": [64, 64]}}], "env": {}, "meta": {"seed": 5}}),
    ],
)
def test_paths(path, expected):
    raw = {"agent": [{"net": {"hid": [64, 64]}}], "env": {}}
    set_path(raw, path, 5)
    assert raw == expected


@pytest.mark.parametrize("path", ["env.name.x", "agent.net.hid.2", "agent.net.hid.x.y"])
def test_a_path_to_nowhere(path):
    with pytest.raises(SpecError, match=f"^-s {path}: there is nothing called"):
        set_path({"agent": {"net": {"hid": [64, 64]}}, "env": {"name": "A"}}, path, 5)
