"""The one error that means: the input is bad, not the lab."""


class SpecError(Exception):
    """Bad input. Its text is one line that names the place and the remedy; the command line prints it and exits 2."""
