"""Line graphs as self-contained HTML, and as PNG where a browser is there to draw them.

A page holds its figure as JSON and plotly.js itself, compressed (2 MB instead of 5), so it opens anywhere, offline, for
as long as browsers read HTML. A PNG is drawn from such a page by kaleido, which needs Chrome or Chromium, in a child
process with a time limit: browsers hang.
"""

import asyncio
import base64
import gzip
import html
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger

from slm_lab.lib.files import atomic_write

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe & Ito's palette, told apart by readers with any colour vision
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY, BLACK)
GREY, INK, GRID = "#7A7A7A", "#2B2B2B", "#E6E6E6"

PNG_SIZE = {"width": 960, "height": 540, "scale": 1.5}
PNG_LIMIT = 20.0  # seconds for all graphs of a run
MANY_INTERVALS = 14  # rows that fit on a screen; more make the page longer
FEW_POINTS = 30  # up to here every point is marked, so that one row alone can be seen
LEGEND_ROW = 8  # names that a legend above the graph has room for; more stand beside it


@dataclass(frozen=True)
class Line:
    """A line of a graph.

    Attributes:
        x: [n].
        y: [n]; a NaN leaves a gap.
        name: in the legend; None leaves the line out of it.
        color: as CSS writes it.
        width: pixels.
        opacity: of the line, 0 to 1.
        dash: "solid", "dash" or "dot".
        band: lower and upper end of the band around the line, each [n].
    """

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    name: str | None = None
    color: str = BLUE
    width: float = 2.0
    opacity: float = 1.0
    dash: str = "solid"
    band: tuple[np.ndarray, np.ndarray] | None = None


def line_figure(title: str, x_title: str, y_title: str, lines: Sequence[Line]) -> "go.Figure":
    """Make a figure of lines, the later ones on top."""
    import plotly.graph_objects as go  # takes a while, and training has no use for it

    traces = [trace for line in lines for trace in _traces(line)]
    look = layout(title, x_title, y_title)
    if sum(line.name is not None for line in lines) > LEGEND_ROW:
        look["legend"] = {"x": 1.02, "y": 1}
    return go.Figure(data=traces, layout=look)


@dataclass(frozen=True)
class Interval:
    """A row of an interval figure.

    Attributes:
        name: at the left of it.
        value: the dot.
        low: lower end of the bar.
        high: upper end of the bar.
        color: as CSS writes it.
    """

    name: str
    value: float
    low: float
    high: float
    color: str = BLUE


def interval_figure(title: str, x_title: str, rows: Sequence[Interval], mark: float | None = None) -> "go.Figure":
    """Make a figure of values with their intervals, one below the other; `mark` is where a dotted line stands."""
    import plotly.graph_objects as go

    traces = [
        go.Scatter(
            x=[row.value],
            y=[place],
            mode="markers",
            name=row.name,
            showlegend=False,
            marker={"size": 11, "color": row.color},
            error_x={
                "array": [row.high - row.value],
                "arrayminus": [row.value - row.low],
                "thickness": 5,
                "width": 0,
                "color": _faded(row.color, 0.45),
            },
        )
        for place, row in enumerate(rows)
    ]
    look = layout(title, x_title, "")
    names = {"tickvals": list(range(len(rows))), "ticktext": [html.escape(row.name, quote=False) for row in rows]}
    look["yaxis"] |= names | {"range": [len(rows) - 0.5, -0.5]}
    look["xaxis"] |= {"rangemode": "normal"}
    look["hovermode"] = "closest"
    if len(rows) > MANY_INTERVALS:
        look["height"] = 150 + 34 * len(rows)
    if mark is not None:
        line = {"color": GREY, "width": 1.5, "dash": "dot"}
        look["shapes"] = [{"type": "line", "x0": mark, "x1": mark, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
    return go.Figure(data=traces, layout=look)


def write_html(figure: "go.Figure", path: str | Path) -> None:
    """Write a figure as one page that needs nothing else; a PNG of what the page showed before goes."""
    title = re.sub(r"<[^>]*>", " ", figure.layout.title.text or Path(path).stem)
    # "</script>" within the JSON would end it
    data = (figure.to_json() or "{}").replace("<", "\\u003c")
    page = PAGE.replace("@TITLE@", html.escape(title)).replace("@FIGURE@", data).replace("@PLOTLY@", _plotly_js())
    Path(path).with_suffix(".png").unlink(missing_ok=True)
    atomic_write(path, page)


def read_figure(path: str | Path) -> dict:
    """Return the figure that a page of `write_html` holds.

    Raises:
        OSError: the page cannot be read.
        ValueError: it is no such page, or half-written.
    """
    text = Path(path).read_text(encoding="utf-8")
    found = re.search(r'<script id="figure" type="application/json">(.*?)</script>', text, re.DOTALL)
    if found is None:
        raise ValueError(f"{path}: no figure in it")
    return json.loads(found[1])


def draw_pngs(pages: Sequence[Path], limit: float = PNG_LIMIT) -> list[Path]:
    """Draw a PNG beside every page of `write_html`, where kaleido and a browser are there; best effort, never raises.

    Args:
        pages: the pages.
        limit: seconds for all together; then the browser is given up.

    Returns:
        the PNG files that are there now.
    """
    if not pages or find_browser() is None:
        return []
    if problem := _run_child(pages, limit):
        logger.warning("not every graph got its .png (the .html are there): {}", problem)
    return [png for page in pages if (png := page.with_suffix(".png")).exists()]


def find_browser() -> str | None:
    """Return the browser that PNGs are drawn with; None where kaleido or a browser is not installed.

    The environment variable BROWSER_PATH names one that is not found by itself.
    """
    try:
        from choreographer.browsers.chromium import Chromium  # comes with kaleido
    except ImportError:
        return None
    path = Chromium.find_browser(skip_local=False)
    return str(path) if path and Path(path).is_file() else None


def _run_child(pages: Sequence[Path], limit: float) -> str | None:
    """Draw in a child process; return what went wrong, if anything did."""
    try:
        # the browser goes when the child does, as the pipe to it breaks
        child = subprocess.run(
            [sys.executable, "-m", "slm_lab.lib.plot"],
            input="\n".join(str(page.resolve()) for page in pages),
            cwd=Path(__file__).parents[2],  # where `-m` finds this package, installed or not
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            start_new_session=True,  # Ctrl-C at the terminal is for the run, which waits here at most `limit`
        )
    except subprocess.TimeoutExpired:
        return f"{limit:g} s were not enough"
    except OSError as error:
        return str(error)
    if child.returncode == 0:
        return None
    return child.stderr.strip().rpartition("\n")[2] or f"exit code {child.returncode}"


def _traces(line: Line) -> list["go.Scatter"]:
    import plotly.graph_objects as go

    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    mode = "lines+markers" if x.size <= FEW_POINTS and line.dash == "solid" else "lines"
    traces = []
    if line.band is not None:
        low, high = line.band
        there = np.isfinite(low) & np.isfinite(high)
        traces.append(
            go.Scatter(
                x=np.concatenate([x[there], x[there][::-1]]),
                y=np.concatenate([high[there], low[there][::-1]]),
                fill="toself",
                fillcolor=_faded(line.color, 0.18),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
            )
        )
    traces.append(
        go.Scatter(
            x=x,
            y=y,
            mode=mode,
            name=line.name or "",
            showlegend=line.name is not None,
            opacity=line.opacity,
            line={"color": line.color, "width": line.width, "dash": line.dash},
            marker={"size": 2.0 + 1.5 * line.width},
            hoverinfo="skip" if line.name is None else None,
        )
    )
    return traces


def _faded(color: str, opacity: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def layout(title: str, x_title: str, y_title: str) -> dict:
    """Return what all figures have in common."""
    axis: dict = {"gridcolor": GRID, "zeroline": False, "showline": True, "linecolor": GREY, "ticks": "outside"}
    axis |= {"tickcolor": GREY, "automargin": True}
    return {
        "template": {"layout": {}},
        "title": {"text": html.escape(title, quote=False), "x": 0.02, "xanchor": "left", "font": {"size": 17}},
        "font": {"family": "Helvetica, Arial, sans-serif", "size": 14, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 72, "r": 24, "t": 84, "b": 60},
        "xaxis": axis | {"title": {"text": x_title, "standoff": 12}, "rangemode": "tozero"},
        "yaxis": axis | {"title": {"text": y_title, "standoff": 12}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hovermode": "x unified",
    }


@cache
def _plotly_js() -> str:
    """Return plotly.js as base64 of gzip; once a process, as it takes 0.2 s."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)).decode()


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>html, body, #graph { height: 100%; margin: 0; } #graph { min-height: 360px; font: 14px sans-serif; }</style>
</head>
<body>
<div id="graph"></div>
<script id="figure" type="application/json">@FIGURE@</script>
<script id="plotly" type="application/gzip;base64">@PLOTLY@</script>
<script>
// plotly.js (MIT licence, see its head) lies above, compressed
const text = id => document.getElementById(id).textContent;
const graph = document.getElementById("graph");
(async () => {
  const packed = Uint8Array.from(atob(text("plotly")), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  const figure = JSON.parse(text("figure"));
  await Plotly.newPlot(graph, figure.data, figure.layout, { responsive: true, displaylogo: false });
})().catch(error => { graph.textContent = "This graph needs a browser of 2023 or later: " + error; });
</script>
</body>
</html>
"""


def _draw_from_stdin() -> None:
    """Be the child of `draw_pngs`: draw a PNG for every page named on the standard input."""
    import kaleido

    async def draw() -> None:
        async with kaleido.Kaleido(mathjax=False) as browser:  # MathJax would come from the network
            for page in map(Path, sys.stdin.read().splitlines()):
                image = await browser.calc_fig(read_figure(page), opts={"format": "png", **PNG_SIZE})
                atomic_write(page.with_suffix(".png"), image)

    asyncio.run(draw())


if __name__ == "__main__":
    _draw_from_stdin()
