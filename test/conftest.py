"""This folder is on the path, so that a spec can name the environments of `probes` ("probes:ActionReward")."""

import os

# `uv run pytest` or plain pytest: the commands that the lab shows are to be the same
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)
