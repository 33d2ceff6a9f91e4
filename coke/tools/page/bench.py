"""The benchmark as one HTML page that needs nothing else: tables, bars and a timeline in SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from coke.files.durable import write_text
from coke.tools.bench.figures import median, spread_range
from coke.tools.bench.methods import ratios
from coke.tools.bench.paper import IMAGENET_IMAGES, PAPER_MINUTES, imagenet_minutes
from coke.tools.bench.report import conclusions, settings_line
from coke.tools.bench.result import EpochBench
from coke.tools.bench.timing import Span, Spread

# Colours that stay apart for most eyes (Okabe and Ito), in the order of a step's stages.
_COLOURS = (
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
_WIDTH, _LABELS, _ROW = 960, 170, 26
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { margin-top: .8rem; border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
li, p { margin: .2rem 0 }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: currentColor }
.legend span { display: inline-block; margin-right: 1rem } .legend i { display: inline-block;
  width: .8em; height: .8em; margin-right: .3em }
.note { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #16181c }
  td, th { border-color: #444 } .note { color: #aaa } }
"""


def write_page(bench: EpochBench, path: Path) -> None:
    """Writes the page; a file that is there is replaced."""
    write_text(path, page(bench))


def page(bench: EpochBench) -> str:
    """The page as text: well-formed XML, no script, nothing loaded from elsewhere."""
    s = bench.settings
    parts = [
        "<h1>coke bench-epoch</h1>",
        f'<p class="note">{escape(settings_line(bench))}</p>',
        "<h2>What the figures say</h2>",
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in conclusions(bench))}</ul>",
        "<h2>Stages</h2>",
        f'<p class="note">Milliseconds per batch of {s["batch size"]}; medians, and lines from the '
        "smallest to the largest round. Full bars: alone. Pale bars: in training, beside the "
        "loader. The loader's stages together are its whole, in which they overlap. The step's "
        "whole is by the clock; its stages are medians, which leave out rare long steps.</p>",
        _stage_chart(bench),
        "<h2>Timeline</h2>",
        '<p class="note">The first steps of the last measurement of training. Loading happens '
        "beside it, in its own threads: only the wait for it shows.</p>",
        _legend(bench),
        _timeline(bench),
        "<h2>Rates</h2>",
        _rates(bench),
        f'<p class="note">{escape(bench.projection.beside_the_paper)}</p>',
    ]
    if bench.methods:
        parts += ["<h2>Methods side by side</h2>", _methods(bench), _ratios(bench)]
    if bench.threads:
        parts += ["<h2>Cores split between loader and step</h2>", _threads(bench)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/>'
        f"<title>coke bench-epoch</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _stage_chart(bench: EpochBench) -> str:
    """One row per stage; a bar's width is its median, and the chart's the longest range."""
    longest = max(
        spread.high for st in bench.stages for spread in (st.alone, st.together) if spread
    )
    scale = (_WIDTH - _LABELS - 110) / longest
    shapes = []
    for row, stage in enumerate(bench.stages):
        top = row * _ROW
        shapes.append(f'<text x="0" y="{top + 15}">{escape(stage.label)}</text>')
        for spread, offset, kind, opacity in (
            (stage.alone, 3, "alone", 1.0),
            (stage.together, 13, "together", 0.45),
        ):
            if spread is None:
                continue
            width = spread.median * scale
            shapes.append(
                f'<rect class="{kind}" data-stage="{escape(stage.name)}" x="{_LABELS}" '
                f'y="{top + offset}" width="{width:.3f}" height="9" '
                f'fill="{_colour(stage.name, bench)}" fill-opacity="{opacity}">'
                f"<title>{_tip(stage.label, kind, spread)}</title></rect>"
            )
            low, high = (_LABELS + x * scale for x in (spread.low, spread.high))
            y = top + offset + 4.5
            shapes.append(
                f'<line x1="{low:.3f}" x2="{high:.3f}" y1="{y}" y2="{y}" stroke="currentColor"/>'
            )
        shown = " / ".join(f"{s.median:,.1f}" for s in (stage.alone, stage.together) if s)
        end = _LABELS + max(s.high for s in (stage.alone, stage.together) if s) * scale
        shapes.append(f'<text x="{end + 6:.1f}" y="{top + 15}">{shown}</text>')
    return _svg("stages", shapes, len(bench.stages) * _ROW)


def _timeline(bench: EpochBench) -> str:
    """One row per step, all to one scale; each stage a piece, in the order it happened."""
    if not bench.timeline:
        return ""
    longest = max(spans[-1].end - spans[0].start for spans in bench.timeline)
    scale = (_WIDTH - _LABELS - 70) / longest
    shapes = []
    for row, spans in enumerate(bench.timeline):
        top, began = row * _ROW, spans[0].start
        shapes.append(f'<text x="0" y="{top + 16}">step at {began:,.0f} ms</text>')
        for span in spans:
            shapes.append(
                f'<rect class="span" data-stage="{escape(span.stage)}" '
                f'x="{_LABELS + (span.start - began) * scale:.3f}" y="{top + 3}" '
                f'width="{span.duration * scale:.3f}" height="{_ROW - 8}" '
                f'fill="{_colour(span.stage, bench)}"><title>{escape(span.stage)}: '
                f"{span.duration:.1f} ms</title></rect>"
            )
        end = _LABELS + (spans[-1].end - began) * scale
        shapes.append(f'<text x="{end + 6:.1f}" y="{top + 16}">{_length(spans):,.1f}</text>')
    return _svg("timeline", shapes, len(bench.timeline) * _ROW)


def _length(spans: Sequence[Span]) -> float:
    return spans[-1].end - spans[0].start


def _legend(bench: EpochBench) -> str:
    pieces = (
        f'<span><i style="background:{_colour(name, bench)}"></i>{escape(name)}</span>'
        for name in _of_step(bench)
    )
    return f'<p class="legend">{"".join(pieces)}</p>'


def _colour(stage: str, bench: EpochBench) -> str:
    names = _of_step(bench)
    return _COLOURS[names.index(stage) % len(_COLOURS)] if stage in names else _COLOURS[0]


def _of_step(bench: EpochBench) -> list[str]:
    """Names of the stages a step is cut into."""
    return [stage.name for stage in bench.stages if stage.part == "step" and not stage.whole]


def _rates(bench: EpochBench) -> str:
    rows = [
        (
            name,
            f"{rate.median:,.0f}",
            spread_range(rate, 0),
            f"{imagenet_minutes(rate.median):,.1f}",
        )
        for name, rate in (
            ("loader alone", bench.loader),
            ("step on synthetic data", bench.step),
            ("training: both", bench.both),
        )
    ]
    gpus = bench.projection.gpus
    if gpus > 1:
        of_all = f"{gpus * bench.both.median:,.0f}"
        name = f"projected: {gpus} such devices"
        rows.append((name, of_all, "", f"{bench.projection.minutes:,.1f}"))
    for name, minutes in PAPER_MINUTES.items():
        per_second = f"{IMAGENET_IMAGES / minutes / 60:,.0f}"
        rows.append((f"paper, 8 GPUs: {name}", per_second, "", f"{minutes:.1f}"))
    return _table(("", "img/s", "range", "minutes per ImageNet epoch"), rows)


def _methods(bench: EpochBench) -> str:
    rows = [
        (
            m.name,
            str(m.views),
            m.precision,
            m.missing or median(m.alone, 1),
            spread_range(m.alone, 1),
            median(m.training, 1),
            spread_range(m.training, 1),
        )
        for m in bench.methods
    ]
    header = ("method", "views", "precision", "step alone, ms", "range", "in training, ms", "range")
    return _table(header, rows)


def _ratios(bench: EpochBench) -> str:
    rows = [
        (
            f"{r.method} / {r.other}",
            f"{r.alone:.2f}",
            f"{r.training:.2f}",
            "" if r.paper is None else f"{r.paper:.2f}",
        )
        for r in ratios(bench.methods)
    ]
    return _table(("time per batch", "step alone", "in training", "paper, Table 6"), rows)


def _threads(bench: EpochBench) -> str:
    rows = [
        (str(t.loader), str(t.step), f"{t.rate.median:,.0f}", spread_range(t.rate, 0))
        for t in bench.threads
    ]
    return _table(("loader threads", "step threads", "img/s", "range"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _svg(name: str, shapes: Iterable[str], height: int) -> str:
    return (
        f'<svg id="{name}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img">{"".join(shapes)}</svg>'
    )


def _tip(name: str, kind: str, spread: Spread) -> str:
    return escape(f"{name}, {kind}: {median(spread, 1)} ms ({spread_range(spread, 1)})")
