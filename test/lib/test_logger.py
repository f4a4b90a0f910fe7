import sys

import pytest
from loguru import logger

from slm_lab.lib.logger import setup_logger


@pytest.fixture(autouse=True)
def _restore():
    yield
    logger.remove()
    logger.add(sys.stderr)


def test_the_level_holds_for_console_and_file(capsys, tmp_path):
    file = tmp_path / "log" / "run.log"
    setup_logger("WARNING", file)
    logger.info("quiet")
    logger.warning("loud")
    console = capsys.readouterr().err
    for text in (console, file.read_text()):
        assert "loud" in text
        assert "quiet" not in text


def test_debug_shows_everything(capsys):
    setup_logger("DEBUG")
    logger.debug("detail")
    assert "detail" in capsys.readouterr().err


def test_a_second_call_replaces_the_first(capsys, tmp_path):
    setup_logger("INFO", tmp_path / "one.log")
    setup_logger("INFO", tmp_path / "two.log")
    logger.info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert (tmp_path / "one.log").read_text() == ""


def test_a_log_file_is_appended_to(tmp_path):
    file = tmp_path / "run.log"
    for word in ("first", "second"):
        setup_logger("INFO", file)
        logger.info(word)
    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["first", "second"]


def test_the_console_can_be_somebody_else(capsys):
    lines = []
    setup_logger("INFO", console=lines.append)
    logger.info("for the parent")
    assert lines[0].endswith("for the parent\n")
    assert capsys.readouterr().err == ""


def test_tracebacks_do_not_show_the_values_of_variables(tmp_path):
    setup_logger("INFO", tmp_path / "run.log")
    password = "hunter" + "2"
    try:
        int(password)
    except ValueError:
        logger.exception("it failed")
    text = (tmp_path / "run.log").read_text()
    assert "int(password)" in text
    assert "└ 'hunter2'" not in text
