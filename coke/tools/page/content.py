"""What a page holds: sections of notes, lists, tables and charts, in plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells of text. The first column is aligned to the left, the others to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plotly figure as the JSON that plotly.js reads; see :mod:`coke.tools.page.charts`."""

    figure: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a note in small letters, and what stands below.

    Attributes:
        lines: sentences, shown as a list.
    """

    title: str
    note: str = ""
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    note: str = ""
    sections: Sequence[Section]
