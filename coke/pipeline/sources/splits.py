"""Which split a file of many images belongs to, by its folder or its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPLITS = ("train", "val", "valid", "validation", "test")


def by_split(names: Iterable[str], root: str) -> dict[str, list[str]]:
    """Groups files by the split that a folder of theirs, or a word of their name, names.

    Files of one split only, or of none, are one group under the name ``""``.

    Raises:
        ValueError: some name a split and some do not.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_split_of(name), []).append(name)
    if len(groups) == 1:
        return {"": groups.popitem()[1]}
    if stray := groups.get(""):
        raise ValueError(
            f"{stray[0]} in {root} names no split ({', '.join(SPLITS)}) and other files do; give "
            "the folder of one split, or one file"
        )
    return {split: groups[split] for split in SPLITS if split in groups}


def _split_of(name: str) -> str:
    *folders, file = name.split("/")
    for folder in reversed(folders):
        if folder in SPLITS:
            return folder
    return next((word for word in re.split(r"[-_.]", file) if word in SPLITS), "")
