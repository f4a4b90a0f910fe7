"""What is said of bad input: the one error that means that it is not the lab's fault, and warnings."""


class SpecError(Exception):
    """Bad input. Its text is one line that names the place and the remedy; the command line prints it and exits 2."""


def warn(line: str) -> None:
    """Warn of input that may be meant otherwise."""
    from loguru import logger  # only where there is something to say: it takes a while to import

    logger.warning(line)
