"""How fast the lab is beside what people use: the same work on every side, in turn, several rounds.

`uv run --group bench python -m bench` runs it; `python -m bench report FILE.json -o docs/PERFORMANCE.md` writes the
document. `works` is the one table of what is done, `sides` are who does it, `scripts` are opponents written here.
"""
