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
from coke.pipeline.sources.source import Files, is_image_name
from coke.pipeline.sources.splits import by_split

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image_path",
                "image", "img", "key")  # fmt: skip
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "wnid", "labels")
_SPLIT_COLUMN = "split"
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DELIMITERS = ("\t", ",", ";", " ")


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
    for split, (name,) in by_name.items():
        inside = _read(listing, name)
        if split and list(inside) != [""]:
            raise ValueError(
                f"{listing.path(name)} is named for the split {split} and has a column "
                f"{_SPLIT_COLUMN}, too; name one table as the source"
            )
        for column_split, rows in inside.items():
            found[split or column_split] = _draft(listing, name, rows, labels)
    splits = found if len(found) > 1 else {"": found.popitem()[1]}
    return Drafts(splits=splits, beside=unread(listing, splits, "no line of the table names it"))


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


def _read(listing: Listing, name: str) -> dict[str, _Rows]:
    where = listing.path(name)
    text = listing.text(name)
    if not text.strip():
        raise ValueError(f"{where} is empty; a table has a path, and a label if any, per line")
    delimiter = _delimiter(name, text.lstrip().partition("\n")[0])
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    splits: dict[str, _Rows] = {}
    columns: _Columns | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns, is_header = _columns(cells, where)
                if is_header:
                    continue
            _add(splits, cells, columns, f"line {reader.line_num} of {where}", reader.line_num)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} of {where} cannot be parsed: {error}") from error
    if not splits:
        raise ValueError(f"{where} has a header and nothing else; add a line per image")
    return splits


@dataclass(frozen=True)
class _Columns:
    count: int
    path: int
    label: int | None
    split: int | None


def _add(
    splits: dict[str, _Rows], cells: Sequence[str], columns: _Columns, where: str, line: int
) -> None:
    if len(cells) != columns.count:
        raise ValueError(
            f"{where} has {len(cells)} cells and the first line {columns.count}; quote cells that "
            "hold the delimiter"
        )
    path = cells[columns.path].strip()
    if not path:
        raise ValueError(f"{where} has no path; complete or remove the line")
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


def _delimiter(name: str, first: str) -> str:
    if name.lower().endswith(".tsv"):
        return "\t"
    return next((d for d in _DELIMITERS[: 3 if name.endswith(".csv") else 4] if d in first), ",")


def _columns(cells: Sequence[str], where: str) -> tuple[_Columns, bool]:
    """The columns' places, and whether the first line is a header."""
    names = [cell.strip().lower() for cell in cells]
    path = _first(names, PATH_COLUMNS)
    label = _first(names, LABEL_COLUMNS)
    if path is not None:
        return _Columns(len(cells), path, label, _first(names, (_SPLIT_COLUMN,))), True
    looks_like_images = [is_image_name(name) for name in names]
    if label is None and len(cells) <= 2 and looks_like_images[0]:
        return _Columns(len(cells), 0, 1 if len(cells) == 2 else None, None), False
    raise ValueError(
        f"{where} starts with the columns {', '.join(map(repr, cells))}; none is called "
        f"{', '.join(PATH_COLUMNS)}. Name them so, or leave out the header and give path and label"
    )


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)
