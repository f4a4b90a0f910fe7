from slm_lab.lib.table import counted, csv_table, markdown_table, text_table


def test_markdown_keeps_bars_within_their_cell():
    assert markdown_table(["a", "b"], [["1|2", "3"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_text_is_aligned_and_has_no_trailing_blanks():
    assert text_table(["", "mean"], [["PPO", "1"], ["DQN-long", "200"]]) == (
        "           mean\nPPO           1\nDQN-long    200\n"
    )
    assert text_table(["a"], []) == "a\n"


def test_one_is_no_plural():
    assert [counted(count, "trial") for count in range(3)] == ["0 trials", "1 trial", "2 trials"]


def test_csv_quotes_what_it_must():
    assert csv_table(["a", "b"], [["x, y", 1.5], ["", ""]]) == 'a,b\n"x, y",1.5\n,\n'
