"""The graphs of a search as a whole: metrics over parameters, parallel coordinates, importance of the parameters."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slm_lab.experiment.analysis import TRIAL_SCALARS
from slm_lab.experiment.paths import RunPaths
from slm_lab.lib.plot import BLUE, GRID, layout, write_html

if TYPE_CHECKING:
    from slm_lab.experiment.search_results import Row

METRICS = tuple(name for name in TRIAL_SCALARS if name != "frame")
COLORS = "Viridis"
MARKS = {"COMPLETE": "circle", "PRUNED": "circle-open"}
DECADES = 10.0  # largest over least value from which an axis is logarithmic


def draw_experiment(paths: RunPaths, title: str, rows: Sequence["Row"], names: Mapping[str, str]) -> None:
    """Draw every metric over every parameter, a dot a trial, coloured by strength.

    Args:
        paths: of the search.
        title: of the graph.
        rows: trials with metrics.
        names: path of a parameter → short name.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    columns, lines = max(len(names), 1), len(METRICS)
    figure = make_subplots(
        lines, columns, shared_xaxes=True, vertical_spacing=0.015, horizontal_spacing=0.3 / (columns + 3)
    )
    strengths = [row.metrics["strength"] for row in rows]
    marker = {"color": strengths, "colorscale": COLORS, "size": 9, "symbol": [MARKS[row.state] for row in rows]}
    texts = [f"trial {row.trial} ({row.state})" for row in rows]
    for column, (path, name) in enumerate(names.items(), start=1):
        x = [_coordinate(row.params.get(path)) for row in rows]
        for line, metric in enumerate(METRICS, start=1):
            y = [row.metrics.get(metric, math.nan) for row in rows]
            dots = go.Scatter(x=x, y=y, mode="markers", marker=marker, text=texts, showlegend=False)
            figure.add_trace(dots, row=line, col=column)
            if column == 1:
                figure.update_yaxes(title_text=metric, row=line, col=1)
            figure.update_xaxes(type=_axis_type(x), row=line, col=column)
        figure.update_xaxes(title_text=name, row=lines, col=column)
    common = layout(title, "", "")
    for axis in ("xaxis", "yaxis", "hovermode"):
        common.pop(axis)
    figure.update_layout(**common, height=150 * lines + 100)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, title_font_size=11)
    write_html(figure, paths.experiment_graph())


def draw_parallel(paths: RunPaths, title: str, rows: Sequence["Row"], names: Mapping[str, str]) -> None:
    """Draw parallel coordinates: a line a trial, through its parameters to its strength."""
    import plotly.graph_objects as go

    strengths = [row.metrics["strength"] for row in rows]
    dimensions = [_dimension(name, [row.params.get(path) for row in rows]) for path, name in names.items()]
    dimensions.append({"label": "strength", "values": strengths})
    line = {"color": strengths, "colorscale": COLORS, "showscale": True}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    common = layout(title, "", "")
    figure.update_layout(**{key: common[key] for key in ("template", "title", "font", "paper_bgcolor")})
    figure.update_layout(margin={"l": 90, "r": 60, "t": 110, "b": 40})
    write_html(figure, paths.experiment_graph("parallel_coordinates"))


def draw_importance(paths: RunPaths, title: str, importance: Mapping[str, float]) -> None:
    """Draw how much each parameter decides the score.

    Args:
        paths: of the search.
        title: of the graph.
        importance: short name → share.
    """
    import plotly.graph_objects as go

    shares = sorted(importance.items(), key=lambda item: item[1])
    bars = go.Bar(x=[share for _, share in shares], y=[name for name, _ in shares], orientation="h", marker_color=BLUE)
    figure = go.Figure(bars, layout(title, "share of what decides the score (PED-ANOVA)", ""))
    figure.update_layout(hovermode="closest")
    write_html(figure, paths.experiment_graph("importance"))


def _coordinate(value: Any) -> Any:
    return value if _is_number(value) else json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _axis_type(values: Sequence[Any]) -> str:
    if not all(map(_is_number, values)):
        return "category"
    return "log" if min(values) > 0 and max(values) >= DECADES * min(values) else "linear"


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    kind = _axis_type(values)
    if kind == "linear":
        return {"label": name, "values": list(values)}
    if kind == "log":
        logs = [math.log10(value) for value in values]
        low, high = (
            math.ceil(2 * min(logs)),
            math.floor(2 * max(logs)),
        )  # in half decades, within the axis
        ticks = [place / 2 for place in range(low, high + 1)]
        return {"label": name, "values": logs, "tickvals": ticks, "ticktext": [f"{10**tick:.1e}" for tick in ticks]}
    texts = [json.dumps(value) for value in values]
    kinds = sorted(set(texts))
    places = list(range(len(kinds)))
    return {"label": name, "values": [kinds.index(text) for text in texts], "tickvals": places, "ticktext": kinds}
