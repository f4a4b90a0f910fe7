"""The command line: arguments only. What takes long to import is imported where it is used."""

from slm_lab.cli.app import main, retro_main

__all__ = ["main", "retro_main"]
