"""A CSV or TSV of paths and labels; the images lie wherever the paths say."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from coke.pipeline.sources import storage
from coke.pipeline.sources.draft import Draft, Drafts, labelled_by_folder, unread
from coke.pipeline.sources.labels import labels_of_text
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import Files
from coke.pipeline.sources.splits import by_split
from coke.pipeline.sources.table_format import (
    LABEL_COLUMNS,
    SPLIT_COLUMN,
    Columns,
    UnreadSplits,
    columns_of,
    delimiter_of,
    with_slashes,
    without_sep_line,
)

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class _Rows:
    """One split of a table."""

    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)  # of the file, where a path stands


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits of a table, by its column ``split``, or of several tables, by their names.

    Keys are the paths as written, with ``./`` and the like removed. A file that is not there is
    found out when it is read.

    Raises:
        ValueError: there is no table, or it makes no sense.
    """
    tables = list(listing.names) if listing.alone else _top_level(listing)
    if not tables:
        raise ValueError(f"no .csv or .tsv file in {listing.src}; name the table as the source")
    by_name = by_split(tables, listing.root)
    if any(len(names) > 1 for names in by_name.values()):
        raise ValueError(
            f"{listing.src} holds {len(tables)} tables ({', '.join(tables[:5])}); name one as the "
            "source"
        )
    found: dict[str, Draft] = {}
    notes_of_all: list[str] = []
    for split, (name,) in by_name.items():
        inside, notes = _read(listing, name)
        if split and list(inside) != [""]:
            raise ValueError(
                f"{listing.path(name)} is named for the split {split} and has a column "
                f"{SPLIT_COLUMN}, too; name one table as the source"
            )
        for column_split, rows in inside.items():
            found[split or column_split] = _draft(listing, name, rows, labels)
        notes_of_all += notes if labels == "auto" else []
    splits = found if len(found) > 1 else {"": found.popitem()[1]}
    beside = unread(listing, splits, "no line of the table names it")
    return Drafts(splits=splits, beside=beside, notes=notes_of_all)


def _top_level(listing: Listing) -> list[str]:
    return [name for name in listing.ending(".csv", ".tsv") if "/" not in name]


def _draft(listing: Listing, name: str, rows: _Rows, labels: str) -> Draft:
    draft = Draft(
        keys=[path.removeprefix("/") for path in rows.paths],
        labels=labels_of_text(rows.labels, rows.paths) if labels == "auto" else rows.labels,
        images=Files(listing.root, tuple(rows.paths)),
        origin=listing.path(name),
        opened=[name, *filter(listing.is_listed, rows.paths)],
        inside=len(rows.paths),
    )
    return labelled_by_folder(draft) if labels == "folders" else draft


def _read(listing: Listing, name: str) -> tuple[dict[str, _Rows], list[str]]:
    """The rows of each split, and what the user should know about them."""
    where = listing.path(name)
    text, delimiter = without_sep_line(listing.text(name))
    skipped = 0 if delimiter is None else 1
    if not text.strip():
        raise ValueError(f"{where} is empty; a table has a path, and a label if any, per line")
    delimiter = delimiter or delimiter_of(name, text.lstrip().splitlines()[0])
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    splits: dict[str, _Rows] = {}
    columns: Columns | None = None
    unread: UnreadSplits | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            number = reader.line_num + skipped
            if columns is None:
                columns, is_header = columns_of(cells, f"line {number} of {where}")
                unread = UnreadSplits(columns)
                if is_header:
                    continue
            _add(splits, cells, columns, f"line {number} of {where}", number, listing.root)
            assert unread is not None
            unread.look(cells)
    except csv.Error as error:
        number = reader.line_num + skipped
        raise ValueError(f"line {number} of {where} cannot be parsed: {error}") from error
    if not splits:
        raise ValueError(f"{where} has a header and nothing else; add a line per image")
    return splits, [*_no_labels(columns, where), *(unread.notes(where) if unread else ())]


def _no_labels(columns: Columns | None, where: str) -> list[str]:
    """A note about a table with further columns, none of which is read as labels."""
    assert columns is not None
    others = [
        name for i, name in enumerate(columns.names) if i not in (columns.path, columns.split)
    ]
    if columns.label is not None or not any(others):
        return []
    return [
        f"No labels were read from {where}: none of its columns ({', '.join(others[:5])}) is "
        f"called {', '.join(LABEL_COLUMNS)}."
    ]


def _add(
    splits: dict[str, _Rows],
    cells: Sequence[str],
    columns: Columns,
    where: str,
    line: int,
    root: str,
) -> None:
    if len(cells) != columns.count:
        raise ValueError(
            f"{where} has {len(cells)} cells and the first line {columns.count}; quote cells that "
            "hold the delimiter"
        )
    path = cells[columns.path].strip()
    if not path:
        raise ValueError(f"{where} has no path; complete or remove the line")
    if "\\" in path:
        path = with_slashes(path, root, where)
    path = path if storage.is_url(path) else posixpath.normpath(path)
    split = "" if columns.split is None else cells[columns.split].strip()
    if columns.split is not None and not _SPLIT_NAME.fullmatch(split):
        raise ValueError(f"{where} has the split {split!r}; a split is a word, such as train")
    rows = splits.setdefault(split, _Rows())
    if path in rows.lines:
        raise ValueError(
            f"{where} names {path} again, after line {rows.lines[path]}; remove one of them"
        )
    rows.lines[path] = line
    rows.paths.append(path)
    rows.labels.append(None if columns.label is None else cells[columns.label])
