"""A page is one file: whole by itself, with all text escaped."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from coke.tools.page import charts
from coke.tools.page.content import Chart, Page, Section, Table
from coke.tools.page.render import check_pages, pages_are_possible, render, write_page

pytest.importorskip("jinja2", reason="pages need coke[report]")
pytest.importorskip("plotly", reason="pages need coke[report]")
HOSTILE = "</script><script>alert(1)</script> & ü 図"


def page(chart: Chart | None = None) -> Page:
    section = Section(
        title=HOSTILE,
        note=HOSTILE,
        lines=[HOSTILE],
        tables=[Table(header=(HOSTILE, "b"), rows=[(HOSTILE, "2")])],
        charts=[] if chart is None else [chart],
    )
    return Page(title=HOSTILE, note=HOSTILE, sections=[section])


def figures(text: str) -> list[dict[str, Any]]:
    """The charts of a page, as plotly.js gets them."""
    return [json.loads(found) for found in re.findall(r"const figure = (\{.*?\});\n", text)]


def test_text_is_escaped_wherever_it_stands() -> None:
    text = render(page())
    assert "alert(1)</script>" not in text
    assert text.count("&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; ü 図") == 8


def test_a_name_cannot_end_a_charts_script() -> None:
    bar = charts.Bar(label=HOSTILE, value=2.0, low=1.0, high=3.0)
    text = render(page(charts.bars({HOSTILE: [bar]}, [HOSTILE], unit="ms")))
    assert "alert(1)</script>" not in text
    (figure,) = figures(text)
    assert figure["data"][0]["y"] == [HOSTILE] and figure["data"][0]["name"] == HOSTILE


def test_nothing_is_fetched_and_plotly_comes_only_with_a_chart(tmp_path: Path) -> None:
    chart = charts.histogram([0.5, 1.5], [3], x_title="x", y_title="y")
    write_page(page(chart), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for tag in ("<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "href="):
        assert tag not in without_scripts
    assert not re.search(r"<script[^>]+src=", text)
    assert len(text) > 1_000_000, "plotly.js is in the file"
    assert len(render(page())) < 10_000


def test_a_number_that_json_does_not_have_is_refused() -> None:
    bar = charts.Bar(label="a", value=float("nan"), low=0.0, high=1.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(page(charts.bars({"a": [bar]}, ["a"], unit="ms")))


def test_without_its_packages_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "coke.tools.page.render.find_spec", lambda name: None if name == "plotly" else real(name)
    )
    assert not pages_are_possible()
    with pytest.raises(ValueError, match=r"pip install 'coke\[report\]'"):
        check_pages()
