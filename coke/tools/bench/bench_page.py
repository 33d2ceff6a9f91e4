"""The benchmark as a page: conclusions, stages, a timeline, rates, methods."""

from __future__ import annotations

from pathlib import Path

from coke.tools.bench.figures import median, spread_range
from coke.tools.bench.methods import ratios
from coke.tools.bench.paper import IMAGENET_IMAGES, PAPER_MINUTES, imagenet_minutes
from coke.tools.bench.report import conclusions, settings_line
from coke.tools.bench.result import EpochBench
from coke.tools.page import charts
from coke.tools.page.content import Chart, Page, Section, Table
from coke.tools.page.render import write_page

ALONE, TOGETHER = "alone", "in training"


def write_bench_page(bench: EpochBench, path: Path) -> None:
    """Writes the page; a file that is there is replaced."""
    write_page(bench_page(bench), path)


def bench_page(bench: EpochBench) -> Page:
    """What the page holds."""
    sections = [
        Section(title="What the figures say", lines=conclusions(bench)),
        Section(
            title="Stages",
            note=f"Milliseconds per batch of {bench.settings['batch size']}: medians, and lines "
            "from the smallest to the largest round. The loader's stages overlap, so its whole is "
            "less than their sum. The whole step is measured by the clock; its stages are medians, "
            "which leave out rare long steps.",
            charts=[_stages(bench)],
        ),
        Section(
            title="Timeline",
            note="The first steps of the last measurement of training. The loader works beside "
            "them in its own threads: only the wait for it shows.",
            charts=[_timeline(bench)] if bench.timeline else [],
        ),
        Section(title="Rates", note=bench.projection.beside_the_paper, tables=[_rates(bench)]),
    ]
    if bench.methods:
        tables = [_methods(bench), _ratios(bench)]
        sections.append(Section(title="Methods side by side", tables=tables))
    if bench.threads:
        title = "Cores split between loader and step"
        sections.append(Section(title=title, tables=[_threads(bench)]))
    return Page(title="coke bench-epoch", note=settings_line(bench), sections=sections)


def _stages(bench: EpochBench) -> Chart:
    series: dict[str, list[charts.Bar]] = {ALONE: [], TOGETHER: []}
    for stage in bench.stages:
        for name, spread in ((ALONE, stage.alone), (TOGETHER, stage.together)):
            if spread is not None:
                series[name].append(
                    charts.Bar(
                        label=stage.label, value=spread.median, low=spread.low, high=spread.high
                    )
                )
    return charts.bars(series, [stage.label for stage in bench.stages], unit="ms")


def _timeline(bench: EpochBench) -> Chart:
    """A row for each step, each from its own start; a stage is a piece of it."""
    spans = [
        charts.Span(
            row=f"step at {step[0].start:,.0f} ms",
            name=span.stage,
            start=span.start - step[0].start,
            length=span.duration,
        )
        for step in bench.timeline
        for span in step
    ]
    return charts.timeline(spans, unit="ms")


def _rates(bench: EpochBench) -> Table:
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
    return Table(header=("", "img/s", "range", "minutes per ImageNet epoch"), rows=rows)


def _methods(bench: EpochBench) -> Table:
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
    return Table(header=header, rows=rows)


def _ratios(bench: EpochBench) -> Table:
    rows = [
        (
            f"{r.method} / {r.other}",
            f"{r.alone:.2f}",
            f"{r.training:.2f}",
            "" if r.paper is None else f"{r.paper:.2f}",
        )
        for r in ratios(bench.methods)
    ]
    header = ("time per batch", "step alone", "in training", "paper, Table 6")
    return Table(header=header, rows=rows)


def _threads(bench: EpochBench) -> Table:
    rows = [
        (str(t.loader), str(t.step), f"{t.rate.median:,.0f}", spread_range(t.rate, 0))
        for t in bench.threads
    ]
    return Table(header=("loader threads", "step threads", "img/s", "range"), rows=rows)
