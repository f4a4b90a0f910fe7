"""Command lines to show to the user."""

import os
import shlex


def command_line(*words: object) -> str:
    """Return a command as it is to be typed: quoted, and through `uv run` where that is how the lab was started."""
    prefix = ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []
    return shlex.join([*prefix, *map(str, words)])
