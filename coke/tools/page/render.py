"""A page as one HTML file: text from a Jinja2 template, charts by plotly.js, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coke.files.durable import write_bytes
from coke.tools.page.content import Page

MISSING = "pages need Jinja2 and plotly: `pip install 'coke[report]'`"


def pages_are_possible() -> bool:
    """Whether the packages for pages are installed."""
    return all(find_spec(name) is not None for name in ("jinja2", "plotly"))


def check_pages() -> None:
    """Raises ValueError, with the remedy, if the packages for pages are not installed."""
    if not pages_are_possible():
        raise ValueError(MISSING)


def write_page(page: Page, path: Path) -> None:
    """Writes a page of about 5 MB, most of which is plotly.js; a file that is there is replaced.

    Raises:
        ValueError: the packages for pages are not installed.
    """
    # Parts of a path that the locale could not decode are written as the bytes they were.
    write_bytes(path, render(page).encode("utf-8", "surrogateescape"))


def render(page: Page) -> str:
    """The page as text. All text in it is escaped."""
    check_pages()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("coke.tools.page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    kinds = list(
        dict.fromkeys(widget.kind for section in page.sections for widget in section.widgets)
    )
    draws = any(section.charts for section in page.sections) or "sample_map" in kinds
    return environment.get_template("page.html").render(
        page=page,
        kinds=kinds,
        plotly_js=_plotly_js() if draws else "",
        json_of=json_of,
        source=lambda name: loader.get_source(environment, name)[0],
    )


def json_of(value: Mapping[str, Any]) -> str:
    """JSON that no text in it can end: ``</script>`` in a name stays a name.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    text: Any = get_plotlyjs()
    return str(text)
