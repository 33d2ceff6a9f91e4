"""What a page holds: sections of notes, findings, lists, tables, charts, widgets; plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells of text.

    Attributes:
        texts: columns of text, from the left; they are aligned to the left, numbers to the right.
        folded: a title under which the table is folded up; empty if it is always seen.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    folded: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plotly figure as the JSON that plotly.js reads; see :mod:`coke.tools.page.charts`.

    Attributes:
        title: stands above the chart.
        half: the chart takes half the width, beside the next one.
    """

    figure: Mapping[str, Any]
    title: str = ""
    half: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that looks wrong, and what to try.

    Attributes:
        title: what is wrong, in a few words.
        numbers: the numbers that say so.
        rule: when this is said.
        remedy: what to try next.
        docs: where it is explained.
    """

    title: str
    numbers: str
    rule: str
    remedy: str
    docs: str


@dataclass(frozen=True, kw_only=True)
class Widget:
    """A part of a page that a script draws: ``templates/KIND.js`` has a function ``KIND``.

    Attributes:
        kind: name of the script and of its function, which gets an element and ``data``.
        data: what it draws, as JSON.
    """

    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a note in small letters, and what stands below.

    Attributes:
        lines: sentences, shown as a list.
    """

    title: str
    note: str = ""
    findings: Sequence[Finding] = ()
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    widgets: Sequence[Widget] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        contents: whether it has a table of contents.
        images: pictures and their captions by id, which widgets show; see
            :mod:`coke.tools.page.thumbnails`.
    """

    title: str
    note: str = ""
    sections: Sequence[Section]
    contents: bool = False
    images: Mapping[str, Any] = field(default_factory=dict)
