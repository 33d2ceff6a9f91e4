"""The benchmark's page shows the measured figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coke.tools.bench.bench_page import bench_page, write_bench_page
from coke.tools.bench.result import EpochBench
from tests.support.browser import screenshot


def test_bars_are_the_medians_and_ranges(bench: EpochBench) -> None:
    (chart,) = next(s for s in bench_page(bench).sections if s.title == "Stages").charts
    for kind, data in zip(("alone", "together"), chart.figure["data"], strict=True):
        measured = [(s.label, getattr(s, kind)) for s in bench.stages if getattr(s, kind)]
        assert data["y"] == [label for label, _ in measured]
        assert data["x"] == [spread.median for _, spread in measured]
        assert data["error_x"]["array"] == [s.high - s.median for _, s in measured]


def test_the_timeline_has_a_row_per_step_without_gaps(bench: EpochBench) -> None:
    (chart,) = next(s for s in bench_page(bench).sections if s.title == "Timeline").charts
    pieces = sorted(
        (row, start, length)
        for data in chart.figure["data"]
        for row, start, length in zip(data["y"], data["base"], data["x"], strict=True)
    )
    assert pieces == [
        ("step at 0 ms", 0, 8),
        ("step at 0 ms", 8, 32),
        ("step at 0 ms", 40, 80),
        ("step at 120 ms", 0, 4),
        ("step at 120 ms", 4, 40),
        ("step at 120 ms", 44, 80),
    ]


def test_tables_have_the_papers_figures_beside_ours(bench: EpochBench) -> None:
    page = bench_page(bench)
    cells = {c for s in page.sections for t in s.tables for row in t.rows for c in row}
    assert {"18.3", "20.8", "11.1", "8.4", "0.61", "no bf16 hardware"} <= cells
    assert "CPU <A & B>" in page.note


@pytest.mark.slow
def test_a_browser_draws_the_bars(bench: EpochBench, tmp_path: Path) -> None:
    """The widths of two bars of one colour, counted in a screenshot, against the figures."""
    write_bench_page(bench, tmp_path / "bench.html")
    pixels = screenshot(tmp_path / "bench.html", tmp_path)
    blue = (abs(pixels.astype(int) - (0, 0x72, 0xB2)).max(axis=2) <= 2).sum(axis=1)
    found, rows = np.unique(blue[blue > 20], return_counts=True)
    widths = found[rows >= 5].tolist()  # a bar is several pixels high; its line crosses a few
    assert widths, "no bar of the series `alone` is drawn"
    longest = max(stage.alone.median for stage in bench.stages if stage.alone)
    assert widths[-1] / widths[0] == pytest.approx(longest / 20, rel=0.03)
