"""The site's own steps: links fit the site's places, docstrings become Markdown."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks"


@pytest.mark.parametrize(
    ("page", "link", "moved"),
    [
        ("runs.md", "order.md#b", "order.md#b"),
        ("runs.md", "../README.md#ingest", "overview.md#ingest"),
        ("runs.md", "../benchmarks/results/a.txt", "benchmarks/results/a.txt"),
        ("runs.md", "../tests/docs/test_hooks.py", "tests/docs/test_hooks.py"),
        ("overview.md", "docs/runs.md#a", "runs.md#a"),
        ("overview.md", "CONTRIBUTING.md", "contributing.md"),
        ("contributing.md", "docs/images/a.png", "images/a.png"),
        ("reference/data.md", "../order.md", "../order.md"),
        ("reference/data.md", "../../CHANGELOG.md", "../changelog.md"),
        ("runs.md", "https://example.org/docs/a.md", "https://example.org/docs/a.md"),
        ("runs.md", "#below", "#below"),
    ],
)
def test_a_link_leads_to_the_same_page_of_the_site(page: str, link: str, moved: str) -> None:
    linked = runpy.run_path(str(HOOKS / "pages.py"))["linked"]
    assert linked(f"See [a page]({link}).", page) == f"See [a page]({moved})."


SOURCE = '''
"""See :func:`one` and :mod:`coke.other`."""

#: How many, see
#: :func:`~coke.other.two`.
MANY = 3


def one():
    """As :meth:`Thing.go`."""


class Thing:
    """A thing.

    Attributes:
        size: in bytes.
        low, high: of the range.
        other: none of these.
    """

    size: int
    high: float

    def go(self):
        """Like :meth:`stop`."""
'''


@pytest.fixture
def package(tmp_path: Path) -> Any:
    griffe = pytest.importorskip("griffe", reason="the extra docs is not installed")
    (tmp_path / "coke").mkdir()
    (tmp_path / "coke" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "coke" / "some.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "coke" / "other.py").write_text("def two(): ...\n", encoding="utf-8")
    roles = runpy.run_path(str(HOOKS / "roles.py"))["Roles"]()
    return griffe.load(
        "coke",
        search_paths=[tmp_path],
        docstring_parser="google",
        extensions=griffe.Extensions(roles),
        try_relative_path=False,
    )


def place(target: str, shown: str) -> str:
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


def test_roles_become_links(package: Any) -> None:
    some = package["some"]
    one, other = place("coke.some.one", "one"), place("coke.other", "coke.other")
    assert some.docstring.value == f"See {one} and {other}."
    assert some["one"].docstring.value == f"As {place('coke.some.Thing.go', 'Thing.go')}."
    two = place("coke.other.two", "two")
    assert some["MANY"].docstring.value == f"How many, see\n{two}."


def test_a_role_that_names_nothing_is_a_warning(
    package: Any, caplog: pytest.LogCaptureFixture
) -> None:
    item = package["some"]["Thing"]["go"]
    with caplog.at_level(logging.WARNING):
        text = runpy.run_path(str(HOOKS / "roles.py"))["with_links"](":meth:`stop`", item)
    assert "coke.some.Thing.go: :meth:`stop` names nothing" in caplog.text
    assert text == "<code>stop</code>"


def test_attributes_have_their_own_types(package: Any) -> None:
    _, attributes = package["some"]["Thing"].docstring.parsed
    found = [(a.name, a.annotation and str(a.annotation)) for a in attributes.value]
    assert found == [("size", "int"), ("low,\u00a0high", None), ("other", None)]
