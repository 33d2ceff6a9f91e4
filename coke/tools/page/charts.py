"""Charts as plotly figures in plain data: bars with ranges, spans of time, a histogram, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coke.tools.page.content import Chart

# Colours that stay apart for most eyes (Okabe and Ito).
COLOURS = (
    "#999999",
    "#56b4e9",
    "#f0e442",
    "#0072b2",
    "#cc79a7",
    "#009e73",
    "#d55e00",
    "#e69f00",
    "#882255",
)
#: Of the same; those that are seen on white as a thin line.
CURVE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
_ROW_PX = 34  # height of a row of bars
_MARGIN_PX = 90  # above and below the plot: axis, legend
_CURVES_PX = 260  # height of a chart of curves
_FEW = 8  # counts up to which each of them has a tick
_MARKED = 40  # with fewer epochs each of them has a mark


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar from 0 to ``value``, with a line from ``low`` to ``high``."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """A piece of a row, from ``start`` to ``start + length``."""

    row: str
    name: str
    start: float
    length: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line over epochs.

    Attributes:
        y: values; None leaves a gap.
        colour: place in CURVE_COLOURS; behind its end they begin anew.
        listed: has an entry in the legend. Curves of one colour are switched on and off together.
    """

    name: str
    y: Sequence[float | None]
    colour: int = 0
    dash: str = "solid"
    listed: bool = True


def curves(
    x: Sequence[int],
    lines: Sequence[Curve],
    *,
    y_title: str,
    title: str = "",
    log: bool = False,
    percent: bool = False,
    from_zero: bool = True,
    level: tuple[str, float] | None = None,
) -> Chart:
    """Lines over epochs, in half the width of a page.

    Args:
        x: (E,) epochs.
        log: a logarithmic axis of values; zeros leave gaps there.
        percent: values are shares, shown in percent.
        from_zero: the axis of values reaches down to 0.
        level: name and value of a dashed horizontal line.
    """
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(x) < _MARKED else "lines",
            "name": line.name,
            "legendgroup": str(line.colour),
            "showlegend": line.listed,
            "x": list(x),
            "y": [None if value is None or (log and value <= 0) else value for value in line.y],
            "line": {
                "color": CURVE_COLOURS[line.colour % len(CURVE_COLOURS)],
                "dash": line.dash,
                "width": 2,
            },
            "marker": {"size": 5},
            "hovertemplate": f"%{{y:{'.1%' if percent else '.4~g'}}}<extra>{line.name}</extra>",
        }
        for line in lines
    ]
    layout = _layout(0, x_title="epoch") | {
        "height": _CURVES_PX,
        "showlegend": len(lines) > 1,
        "hovermode": "x unified",
    }
    layout["xaxis"] |= {"dtick": max(1, -(-(max(x) - min(x)) // 10)), "zeroline": False}
    layout["yaxis"] |= {"title": {"text": y_title}, "gridcolor": "#e9ecef", "zeroline": False}
    if log:
        layout["yaxis"] |= {"type": "log"}
    elif from_zero:
        layout["yaxis"] |= {"rangemode": "tozero"}
    if percent:
        layout["yaxis"] |= {"tickformat": ".0%"}
    if level is not None:
        name, value = level
        layout["shapes"] = [_line({"xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value})]
        layout["annotations"] = [
            {
                "text": name,
                "x": 1,
                "xref": "paper",
                "xanchor": "right",
                "y": value,
                "yanchor": "bottom",
                "showarrow": False,
            }
        ]
    return Chart(figure={"data": data, "layout": layout}, title=title, half=True)


def bars(series: Mapping[str, Sequence[Bar]], rows: Sequence[str], *, unit: str) -> Chart:
    """Horizontal bars, a colour for each of two series.

    Args:
        rows: the bars' labels from top to bottom.
    """
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [bar.label for bar in of],
            "x": [bar.value for bar in of],
            "marker": {"color": COLOURS[3 - 2 * (i % 2)]},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [bar.high - bar.value for bar in of],
                "arrayminus": [bar.value - bar.low for bar in of],
                "thickness": 1,
            },
            "hovertemplate": "%{y}: %{x:,.2f} " + unit + "<extra>" + name + "</extra>",
        }
        for i, (name, of) in enumerate(series.items())
    ]
    layout = _layout(len(rows), x_title=unit)
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": [*rows], "autorange": "reversed"}
    return Chart(figure={"data": data, "layout": layout})


def timeline(spans: Sequence[Span], *, unit: str) -> Chart:
    """Rows of spans, a colour for each name of a span."""
    rows = list(dict.fromkeys(span.row for span in spans))
    names = list(dict.fromkeys(span.name for span in spans))
    data = []
    for i, name in enumerate(names):
        of = [span for span in spans if span.name == name]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [span.row for span in of],
                "base": [span.start for span in of],
                "x": [span.length for span in of],
                "marker": {"color": COLOURS[i % len(COLOURS)]},
                "hovertemplate": "%{x:,.2f} " + unit + "<extra>" + name + "</extra>",
            }
        )
    layout = _layout(len(rows), x_title=unit) | {"barmode": "overlay"}
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": rows, "autorange": "reversed"}
    return Chart(figure={"data": data, "layout": layout})


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_title: str,
    y_title: str,
    marks: Sequence[tuple[str, float]] = (),
    title: str = "",
    half: bool = False,
) -> Chart:
    """Bars between edges, and named vertical lines.

    Args:
        edges: (E + 1,) ascending.
        counts: (E,).
        marks: name and position of each line.
    """
    assert len(edges) == len(counts) + 1
    left, right = edges[:-1], edges[1:]
    data = [
        {
            "type": "bar",
            "x": [(a + b) / 2 for a, b in zip(left, right, strict=True)],
            "width": [b - a for a, b in zip(left, right, strict=True)],
            "y": list(counts),
            "marker": {"color": COLOURS[3]},
            "hovertemplate": "%{y:,}<extra></extra>",
        }
    ]
    layout = _layout(10, x_title=x_title) | {"showlegend": False, "bargap": 0.05}
    layout["yaxis"] |= {"title": {"text": y_title}}
    if max(counts) <= _FEW:
        layout["yaxis"] |= {"dtick": 1}
    layout["shapes"] = [
        _line({"xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1})
        for _, at in marks
    ]
    layout["annotations"] = [
        {"text": name, "x": at, "y": 1.0, "yref": "paper", "yanchor": "bottom", "showarrow": False}
        for name, at in marks
    ]
    if half:
        layout["height"] = _CURVES_PX
    return Chart(figure={"data": data, "layout": layout}, title=title, half=half)


def _line(ends: dict[str, Any]) -> dict[str, Any]:
    return {"type": "line", **ends, "line": {"color": COLOURS[6], "dash": "dash", "width": 2}}


def _layout(rows: int, *, x_title: str) -> dict[str, Any]:
    return {
        "height": _MARGIN_PX + _ROW_PX * rows,
        "margin": {"l": 10, "r": 10, "t": 30, "b": 50},
        "font": {"family": "system-ui, sans-serif"},
        "plot_bgcolor": "#ffffff",
        "xaxis": {"title": {"text": x_title}, "gridcolor": "#e9ecef", "automargin": True},
        "yaxis": {"automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
