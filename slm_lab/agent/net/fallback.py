"""What goes on where a faster way of doing a thing fails."""

from collections.abc import Callable
from typing import Any

from loguru import logger

_warned: set[str] = set()
"""What was warned of in this process: all learners meet the same obstacle."""


class NotInNumpy(Exception):  # noqa: N818 - nothing went wrong: torch does it then
    """A gradient step cannot be done by numpy; the text says why."""


class NotRecorded(Exception):  # noqa: N818 - nothing went wrong: it is done in another way then
    """A function does what a graph of torch's operations cannot repeat; the text says what."""


class OrPlain:
    """Calls `fast`; from its first failure on, which is warned of, `plain`, which does the same without a compiler.

    Args:
        what: is done, for the warning.
        fast: fails, if ever, before anything is changed, and with an error of any kind; NotRecorded is passed on.
        plain: passes on errors of its own.
    """

    def __init__(self, what: str, fast: Callable[..., Any], plain: Callable[..., Any]) -> None:
        self.what, self.plain = what, plain
        self.fast: Callable[..., Any] | None = fast

    def __call__(self, *args: Any) -> Any:
        """Return what either returns."""
        if self.fast is None:
            return self.plain(*args)
        try:
            return self.fast(*args)
        except NotRecorded:
            raise
        except Exception as error:  # of a compiler everything may come; what is the code's own comes again without it
            self.fast = None
            result = self.plain(*args)
            cause = getattr(error, "inner_exception", error)
            why = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
            warning = f"--torch-compile: {self.what} cannot be compiled here and is done without ({why})"
            if warning not in _warned:
                _warned.add(warning)
                logger.warning("{}", warning)
            return result
