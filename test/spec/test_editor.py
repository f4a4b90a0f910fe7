"""The JSON Schema says what the models say."""

import json
from copy import deepcopy

import pytest

from slm_lab.spec import json_schema
from slm_lab.spec.loader import SCHEMA_FILE, spec_files
from slm_lab.spec.parse import read_file

jsonschema = pytest.importorskip("jsonschema")

SPEC = {
    "agent": {"algorithm": {"name": "Random"}},
    "env": {"name": "CartPole-v1", "max_frame": "${max_frame:-1000}"},
}


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_committed_schema_is_true():
    """If not: python -m slm_lab.spec.editor."""
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


@pytest.mark.parametrize("file", spec_files(), ids=lambda file: file.name)
def test_shipped_files_are_valid(validator, file):
    assert [error.message for error in validator.iter_errors(read_file(file))] == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("env", "max_frame", "many"),
        ("env", "num_envs", 0),
        ("meta", "log_freq", 500),
        ("agent", "algorithm", {"name": "PPO"}),
        ("agent", "net", {"type": "MLPNet", "hid_layers": [64], "actor_lr": 1}),
    ],
)
def test_an_editor_sees_mistakes(validator, section, key, value):
    assert validator.is_valid({"x": SPEC})
    broken = deepcopy(SPEC)
    broken.setdefault(section, {})[key] = value
    assert not validator.is_valid({"x": broken})


def test_an_editor_may_refer_to_the_schema_and_to_shared_parts(validator):
    assert validator.is_valid({"$schema": "spec.schema.json", "_net": {"anything": 1}, "x": SPEC})


def test_an_editor_can_show_what_a_key_means():
    ppo = json_schema()["$defs"]["PPO"]["properties"]
    assert "divides time_horizon" in ppo["minibatch_size"]["description"]
