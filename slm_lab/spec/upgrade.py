"""Older forms of specs, brought up to date; every change is said in one line."""

from typing import Any


def upgrade(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """Return `raw` in today's form."""
    return raw
