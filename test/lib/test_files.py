import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.files import RowWriter, atomic_write, read_json, read_rows, rows_text, truncate_rows, write_json


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    atomic_write(path, b"n\xc3\xa9w")
    assert path.read_text(encoding="utf-8") == "néw"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_failed_atomic_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "\ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_json_writes_nan_as_null_and_numpy_as_plain(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"nan": math.nan, "inf": -math.inf, "array": np.array([1.5, np.nan]), "n": np.int64(3), "t": (1,)})
    assert "NaN" not in path.read_text()
    assert read_json(path) == {"nan": None, "inf": None, "array": [1.5, None], "n": 3, "t": [1]}


def test_half_written_json_is_a_value_error(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1')
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path):
    writer = RowWriter(tmp_path / "a.csv")
    writer.append({"total_reward": None, "loss": math.nan, "frame": 10})
    writer.append({"total_reward": np.float32(1.5), "loss": 0.1, "frame": 20})
    assert (tmp_path / "a.csv").read_text() == "total_reward,loss,frame\n,,10\n1.5,0.1,20\n"


def test_rows_read_back_as_columns_with_nan_for_empty(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,\n-2.5e3,4\n")
    rows = read_rows(tmp_path / "a.csv")
    assert rows["a"].tolist() == [1.0, -2500.0]
    assert math.isnan(rows["b"][0])
    assert rows["b"][1] == 4.0


def test_writer_goes_on_after_a_crash_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,frame\n1,10\n2,2")  # 2,20 was on its way
    with_tail = RowWriter(path)
    with_tail.append({"frame": 20, "a": 2})
    assert path.read_text() == "a,frame\n1,10\n2,20\n"


def test_writer_refuses_a_column_that_would_be_lost_and_fills_one_that_is_missing(tmp_path):
    writer = RowWriter(tmp_path / "a.csv")
    writer.append({"a": 1, "frame": 10})
    with pytest.raises(ValueError, match="entropy"):
        writer.append({"a": 1, "frame": 20, "entropy": 0.5})
    writer.append({"frame": 20})
    assert (tmp_path / "a.csv").read_text() == "a,frame\n1,10\n,20\n"


@pytest.mark.parametrize("tail", ["3,3", "3", "3,30", "garbage,30\n", "1,2,3\n"])
def test_reader_leaves_out_what_is_no_whole_row(tmp_path, tail):
    # "3,30" without its newline may have been "3,3000"
    (tmp_path / "a.csv").write_text("a,frame\n1,10\n2,20\n" + tail)
    assert read_rows(tmp_path / "a.csv")["frame"].tolist() == [10.0, 20.0]


@pytest.mark.parametrize("text", ["", "a,fra"])
def test_file_without_a_whole_header_has_no_columns(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert read_rows(tmp_path / "a.csv") == {}
    RowWriter(tmp_path / "a.csv").append({"frame": 1})
    assert (tmp_path / "a.csv").read_text() == "frame\n1\n"


def test_truncate_drops_the_rows_after_the_checkpoint(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("frame,a\n10,0.1\n20,\n30,0.30000000000000004\n40,1\n50")
    truncate_rows(path, 30)
    assert path.read_text() == "frame,a\n10,0.1\n20,\n30,0.30000000000000004\n"
    truncate_rows(path, 0)
    assert path.read_text() == "frame,a\n"
    truncate_rows(tmp_path / "none.csv", 30)
    assert not (tmp_path / "none.csv").exists()


@given(st.lists(st.tuples(st.floats(width=64, allow_infinity=False), st.integers(0, 10**12)), max_size=8))
def test_written_rows_read_back_the_same(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    atomic_write(path, rows_text({"value": [value for value, _ in rows], "frame": [frame for _, frame in rows]}))
    table = read_rows(path)
    np.testing.assert_array_equal(table["value"], np.array([value for value, _ in rows]))
    assert table["frame"].tolist() == [frame for _, frame in rows]


def test_a_standard_reader_understands_the_rows(tmp_path):
    atomic_write(tmp_path / "a.csv", rows_text({"a": [1.5, math.nan], "frame": [10.0, 20.0]}))
    with (tmp_path / "a.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "1.5", "frame": "10"}, {"a": "", "frame": "20"}]


def test_json_keeps_names_readable(tmp_path):
    write_json(tmp_path / "a.json", {"λ": 1})
    assert "λ" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"λ": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=5), item, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_reads_back_the_same(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path) == value


def test_a_series_takes_one_line(tmp_path):
    write_json(tmp_path / "a.json", {"net": {"hid_layers": [64, 64]}})
    assert (tmp_path / "a.json").read_text() == '{\n  "net": {\n    "hid_layers": [64, 64]\n  }\n}\n'
