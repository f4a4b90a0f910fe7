from slm_lab.lib.shell import command_line


def test_words_with_spaces_are_quoted(monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert command_line("slm-lab", "my data/a.json", "a") == "slm-lab 'my data/a.json' a"


def test_who_came_through_uv_goes_on_through_uv(monkeypatch):
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert command_line("slm-retro", "data/a") == "uv run slm-retro data/a"
