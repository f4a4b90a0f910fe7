"""JSON as people write it, YAML as they mean it, and errors with line and column."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.spec import SpecError
from slm_lab.spec.parse import parse_json, parse_yaml, read_file

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_comments_and_trailing_commas():
    text = """
    // a comment with a " in it
    {
      "a": [1, 2, /* three, */ ], // and, }
      "b": "no // comment, /* here */ ,}",
      "c": {"d": 1e-3, /* last */
      },
    }
    """
    assert parse_json(text) == {"a": [1, 2], "b": "no // comment, /* here */ ,}", "c": {"d": 0.001}}


@given(TREES)
def test_plain_json_is_read_as_it_is(tree):
    assert parse_json(json.dumps(tree)) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: not JSON: expecting ',' delimiter"),
        ('{"a": 1, // half\n "b": }', "line 2, column 7: not JSON: expecting value"),
        ('{"a": [1,,2]}', "line 1, column 10: not JSON"),
        ('{"a": "x\n"}', "line 1, column 9: not JSON: invalid control character"),
        ('{"a": {"b": 1, "b": 2}}', "key 'b' stands twice in one object; remove one of them"),
        ('{"a": NaN}', "NaN is no JSON; write a number or null"),
        ("", "line 1, column 1: not JSON"),
    ],
)
def test_what_is_no_json(text, message):
    with pytest.raises(ValueError) as error:
        parse_json(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e7", 1e7),
        ("-1E+3", -1e3),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+.5e-1", 0.05),
        ("128", 128),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("'1e7'", "1e7"),
        ("null", None),
        ("true", True),
        ("${max_frame:-1e6}", "${max_frame:-1e6}"),
    ],
)
def test_yaml_numbers(text, value):
    parsed = parse_yaml(f"x: {text}")["x"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_yaml_anchors_and_merges():
    text = """
_net: &net {type: MLPNet, hid_layers: [64]}
a:
  net: {<<: *net, hid_layers: [128]}
b:
  net: *net
"""
    parsed = parse_yaml(text)
    assert parsed["a"]["net"] == {"type": "MLPNet", "hid_layers": [128]}
    assert parsed["b"]["net"] == {"type": "MLPNet", "hid_layers": [64]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: [1, 2", "line 2, column 11: not YAML: expected"),
        ("a:\n  b: 1\n  b: 2", "line 3: key 'b' stands twice in one mapping; remove one of them"),
        ("a:\n  1: 2", "line 2: key 1 is not text; put it in quotes"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("a: &a\n  b: *a", "Circular reference"),
    ],
)
def test_what_is_no_yaml(text, message):
    with pytest.raises(ValueError) as error:
        parse_yaml(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_text(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SpecError, match=r"x\.json: is not text"):
        read_file(file)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_file(file) == {"a": 1}
