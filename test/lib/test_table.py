import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.table import counted, csv_table, markdown_table, read_markdown_table, text_table


def test_markdown_keeps_bars_within_their_cell():
    assert markdown_table(["a", "b"], [["1|2", "3"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


CELLS = st.lists(st.text("a |\\\\-"), min_size=3, max_size=3)


@given(CELLS, st.lists(CELLS))
def test_markdown_is_read_back(head, rows):
    assert read_markdown_table("## Title\n\nProse.\n\n" + markdown_table(head, rows) + "\n") == (head, rows)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no table"),
        ("| a |\n", "no table"),
        ("| a |\n| --- |\n| 1 |\nmore\n", "'more' is no row of a table"),
        ("| a |\n| --- |\n| 1 | 2 |\n", "a row of a table has not 1 cells"),
    ],
)
def test_what_is_no_table_is_not_read(text, why):
    with pytest.raises(ValueError, match=f"^{why}$"):
        read_markdown_table(text)


def test_text_is_aligned_and_has_no_trailing_blanks():
    assert text_table(["", "mean"], [["PPO", "1"], ["DQN-long", "200"]]) == (
        "           mean\nPPO           1\nDQN-long    200\n"
    )
    assert text_table(["a"], []) == "a\n"


def test_one_is_no_plural():
    assert [counted(count, "trial") for count in range(3)] == ["0 trials", "1 trial", "2 trials"]


def test_csv_quotes_what_it_must():
    assert csv_table(["a", "b"], [["x, y", 1.5], ["", ""]]) == 'a,b\n"x, y",1.5\n,\n'
