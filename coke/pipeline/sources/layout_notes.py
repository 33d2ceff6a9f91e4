"""Notes on folders of images whose layout may mean something else than it was taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coke.pipeline.sources.draft import Draft
from coke.pipeline.sources.labels import Label
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.splits import UNLABELLED, split_in_name

_TABLES = (".csv", ".tsv", ".jsonl")
_SHOWN = 3  # names in a note


def unread_tables(listing: Listing, splits: Mapping[str, Draft]) -> list[str]:
    """A note about tables that nothing was read from, where labels seem to be missing.

    Labels are missing in a split without any, and where all images have the same one.
    """
    read = {name for draft in splits.values() for name in draft.label_files}
    tables = [name for name in listing.ending(*_TABLES) if name not in read]
    if not tables or not _is_missing_labels(splits):
        return []
    shown = ", ".join(map(listing.path, tables[:_SHOWN])) + (
        ", ..." if len(tables) > _SHOWN else ""
    )
    it = "it" if len(tables) == 1 else "one of them"
    return [
        f"No labels were read from {shown}. If {it} has a line per image, give it as the "
        "source, as a .csv or .tsv of paths and labels."
    ]


def _is_missing_labels(splits: Mapping[str, Draft]) -> bool:
    found: list[set[Label]] = [
        set(draft.labels) for split, draft in splits.items() if split not in UNLABELLED
    ]
    return {None} in found or len(set[Label]().union(*found)) < 2


def split_names_inside(names: Sequence[str]) -> list[str]:
    """A note about folders that are named for several splits, in a source that has none.

    Args:
        names: of the images.
    """
    found: dict[str, str] = {}
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        parts = folder.split("/")
        for depth, part in enumerate(parts, 1):
            if split := split_in_name(part):
                found.setdefault(split, "/".join(parts[:depth]))
    if len(found) < 2:
        return []
    return [
        f"All images are one set, though folders such as {' and '.join(list(found.values())[:2])} "
        "are named for splits. To keep splits apart, give a folder that holds nothing else."
    ]


def same_folders_inside(names: Sequence[str]) -> list[str]:
    """A note about folders that were taken for classes and all hold the same folders.

    Args:
        names: of the images.
    """
    inside: dict[str, set[str]] = {}
    for folder in {name.rpartition("/")[0] for name in names}:
        top, _, rest = folder.partition("/")
        inside.setdefault(top, set()).add(rest.partition("/")[0])
    common, *others = inside.values() or [set()]
    if not others or len(common) < 2 or "" in common or any(other != common for other in others):
        return []
    return [
        f"The classes ({_some(inside)}) hold folders of the same names ({_some(common)}). If these "
        "are the classes, ingest each of the folders around them alone, or name those for splits."
    ]


def _some(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
