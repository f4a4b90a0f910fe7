"""Logging with loguru: the console, and a file beside the run's results."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from loguru import logger

CONSOLE_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {name}:{line} {message}"


def setup_logger(level: str = "INFO", *files: Path, console: Callable[[str], None] | None = None) -> None:
    """Send log messages to the console, and append them to `files`.

    A call replaces what earlier calls of this process set up.

    Args:
        level: the least important level to show, in both places: DEBUG, INFO, WARNING or ERROR.
        files: log files; their folders are made if they are not there.
        console: receives every formatted message, line end included; stderr if None. A session in a process of its
            own passes its messages on to the parent, whose progress bars know where on the screen a line may stand.
    """
    logger.remove()
    colour = console is None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    # a traceback without the frames above the handler (backtrace), and without local variables (diagnose): logs are
    # often shown to others
    logger.add(
        console or _to_stderr,
        level=level,
        format=CONSOLE_FORMAT,
        colorize=colour,
        backtrace=False,
        diagnose=False,
    )
    for file in files:
        logger.add(file, level=level, format=FILE_FORMAT, backtrace=False, diagnose=False)


def _to_stderr(line: str) -> None:
    # looked up at every message, because live progress bars put their own stream in its place
    sys.stderr.write(line)
