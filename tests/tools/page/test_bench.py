"""The page is whole by itself, and its bars are as wide as the figures say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from coke.tools.bench.result import EpochBench
from coke.tools.page.bench import page, write_page

SVG = "{http://www.w3.org/2000/svg}"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chart(bench: EpochBench, name: str) -> ElementTree.Element:
    root = ElementTree.fromstring(page(bench).partition("\n")[2])  # after the doctype
    (found,) = [svg for svg in root.iter(f"{SVG}svg") if svg.get("id") == name]
    return found


def number(element: ElementTree.Element, attribute: str) -> float:
    return float(element.attrib[attribute])


def test_bars_are_proportional_to_the_medians(bench: EpochBench) -> None:
    bars = {
        (bar.get("data-stage"), bar.get("class")): number(bar, "width")
        for bar in chart(bench, "stages").iter(f"{SVG}rect")
    }
    expected = {
        (stage.name, kind): spread.median
        for stage in bench.stages
        for kind, spread in (("alone", stage.alone), ("together", stage.together))
        if spread is not None
    }
    assert bars.keys() == expected.keys()
    scale = bars["backward", "alone"] / 70
    assert scale > 0
    for key, median in expected.items():
        assert bars[key] == pytest.approx(scale * median, abs=0.01)


def test_whiskers_reach_from_the_smallest_to_the_largest_round(bench: EpochBench) -> None:
    drawing = chart(bench, "stages")
    for bar, line in zip(drawing.iter(f"{SVG}rect"), drawing.iter(f"{SVG}line"), strict=True):
        start, width = number(bar, "x"), number(bar, "width")
        assert number(line, "x1") == pytest.approx(start + 0.9 * width, abs=0.01)
        assert number(line, "x2") == pytest.approx(start + 1.25 * width, abs=0.01)
        assert number(line, "x2") <= 960


def test_the_timeline_has_a_row_per_step_without_gaps(bench: EpochBench) -> None:
    rows: dict[float, list[ElementTree.Element]] = {}
    for piece in chart(bench, "timeline").iter(f"{SVG}rect"):
        rows.setdefault(number(piece, "y"), []).append(piece)
    assert len(rows) == 2
    scale = sum(number(piece, "width") for piece in rows[min(rows)]) / 120
    for pieces, spans in zip(rows.values(), bench.timeline, strict=True):
        assert [piece.get("data-stage") for piece in pieces] == [span.stage for span in spans]
        at = number(pieces[0], "x")
        for piece, span in zip(pieces, spans, strict=True):
            assert number(piece, "x") == pytest.approx(at, abs=0.01)
            assert number(piece, "width") == pytest.approx(scale * span.duration, abs=0.01)
            at += number(piece, "width")


def test_loads_nothing_and_runs_nothing(bench: EpochBench) -> None:
    text = page(bench)
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(|\bsrc=|\bhref=", text)
    assert "CPU &lt;A &amp; B&gt;" in text and "smaller &lt;views&gt;" in text
    for figure in ("18.3", "20.8", "11.1", "8.4", "0.61", "no bf16 hardware"):
        assert figure in text


@pytest.mark.slow
def test_a_browser_draws_the_bars(bench: EpochBench, tmp_path: Path) -> None:
    """Pixels of a stage's colour, counted in a screenshot, against the figures."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    write_page(bench, tmp_path / "bench.html")
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--force-device-scale-factor=1",
            "--window-size=1100,1800",
            f"--screenshot={tmp_path / 'page.png'}",
            (tmp_path / "bench.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("RGB"))

    def longest_run(colour: str) -> int:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(pixels.astype(int) - wanted).max(axis=2) <= 2).sum(axis=1).max())

    drawn: dict[str, list[tuple[str, float]]] = {}
    for name in ("stages", "timeline"):
        for bar in chart(bench, name).iter(f"{SVG}rect"):
            if bar.get("fill-opacity", "1.0") == "1.0":
                known = drawn.setdefault(bar.attrib["data-stage"], [])
                known.append((bar.attrib["fill"], number(bar, "width")))
    runs, widths = [], []
    for stage in ("forward", "backward"):
        runs.append(longest_run(drawn[stage][0][0]))
        widths.append(max(width for _, width in drawn[stage]))
    assert min(runs) > 100  # of a page of 1,000
    assert runs[0] / runs[1] == pytest.approx(widths[0] / widths[1], abs=0.02)
