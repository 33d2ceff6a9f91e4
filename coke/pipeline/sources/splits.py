"""Splits by name: of folders, and of files that hold many images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SPLITS = ("train", "val", "valid", "validation", "test")
_RENAMED = {"training": "train", "testing": "test"}
#: Words that name a split only where all folders beside them name one, too.
_FURTHER = ("trainval", "dev", "eval", "unlabeled", "unlabelled", "extra", "pred")
_RENAMED_FURTHER = {
    "trainset": "train", "valset": "val", "testset": "test", "evaluation": "eval",
    "prediction": "pred",
}  # fmt: skip
UNLABELLED = ("unlabeled", "unlabelled", "pred")  # splits whose folders are no classes
_ORDER = (*SPLITS, *_FURTHER)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NOISE = frozenset(
    ("set", "images", "image", "imgs", "img", "data", "dataset", "part", "split", "x", "final")
)
_DEEPEST_WRAPPER = 8


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits of a source.

    Attributes:
        wrapper: the folder that holds them all, with a slash at its end; empty for the source.
        folders: names of the folders of each split; a split may have several parts.
    """

    wrapper: str
    folders: dict[str, list[str]]


def split_folders(images: Sequence[str], imageless: Sequence[str] = ()) -> SplitFolders | None:
    """The folders that are splits; None where folders are classes, or there are none.

    Folders called train, val, valid, validation or test, in any case, are splits where there are
    several, whatever lies beside them. Folders with further names (``train2017``, ``train.X1``,
    ``test_set``, ``unlabeled``) are splits where every folder of images has such a name. A single
    split with nothing beside it is one, too. Folders around all images are looked into.

    Args:
        images: names of the images of the source.
        imageless: folders of the source that are named for a split and hold no image.
    """
    wrapper = ""
    for _ in range(_DEEPEST_WRAPPER):
        counts = Counter(name.partition("/")[0] if "/" in name else "" for name in images)
        tops = [name for name in counts if name]
        if found := _splits_among([*tops, *imageless], lonely="" not in counts):
            return SplitFolders(wrapper, found)
        if len(tops) != 1 or "" in counts:
            return None
        wrapper += f"{tops[0]}/"
        images = [name.removeprefix(f"{tops[0]}/") for name in images]
        imageless = ()
    return None


def _splits_among(folders: Sequence[str], *, lonely: bool) -> dict[str, list[str]]:
    """The splits among folders; ``lonely`` when no images lie beside the folders."""
    plain = {folder: split for folder in folders if (split := _plain_split(folder))}
    named = {folder: split for folder in folders if (split := _split_of_folder(folder, folders))}
    splits = set(named.values())
    all_named = lonely and len(named) == len(folders) and any(split in SPLITS for split in splits)
    all_named = all_named and (len(splits) > 1 or len(folders) == 1)
    if len(set(plain.values())) < 2 and not all_named:
        return {}
    found: dict[str, list[str]] = {}
    for folder, split in sorted(named.items()):
        found.setdefault(split, []).append(folder)
    return {split: found[split] for split in _ORDER if split in found}


def _plain_split(folder: str) -> str | None:
    name = folder.lower()
    return name if name in SPLITS else _RENAMED.get(name)


def _split_of_folder(folder: str, siblings: Sequence[str]) -> str | None:
    """The split that a folder's name means, when nothing else is in the name."""
    if split := _plain_split(folder):
        return split
    common = set.intersection(*(set(_words(name)) for name in siblings))
    if common == set(_words(folder)):
        common = set()
    rest = [word for word in _words(folder) if word not in _NOISE and word not in common]
    return _split_of_word(rest[0]) if len(rest) == 1 else None


def split_in_name(folder: str) -> str | None:
    """The split that a folder's name means, or that its last word names."""
    if split := _split_of_folder(folder, [folder]):
        return split if split in SPLITS else None
    last = _words(folder)[-1:]
    return _plain_split(last[0]) if last else None


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _split_of_word(word: str) -> str | None:
    known = {**_RENAMED, **_RENAMED_FURTHER}
    return known.get(word, word if word in _ORDER else None)


def same_split_inside(images: Iterable[str], folder: str) -> str:
    """The folder, with a slash, that a split's folder is repeated in (``test/test/cat/1.jpg``).

    Args:
        images: names of the images in the split's folder.
        folder: name of the split's folder.

    Returns:
        What to take off each image's name; empty where nothing is repeated.
    """
    tops = {name.partition("/")[0] if "/" in name else "" for name in images}
    if len(tops) != 1 or "" in tops:
        return ""
    (inner,) = tops
    split = _split_of_folder(folder, [folder])
    repeated = inner == folder or (split and _split_of_folder(inner, [inner]) == split)
    return f"{inner}/" if repeated else ""


def by_split(names: Iterable[str], root: str) -> dict[str, list[str]]:
    """Groups files by the split that a folder of theirs, or a word of their name, names.

    Files of one split only, or of none, are one group under the name ``""``.

    Raises:
        ValueError: some name a split and some do not.
    """
    names = list(names)
    groups = _grouped(names, further=True)
    if "" in groups or not groups.keys() & set(SPLITS):
        # A word such as `extra` or `dev` may mean something else.
        groups = _grouped(names, further=False)
    if len(groups) == 1:
        return {"": groups.popitem()[1]}
    if stray := groups.get(""):
        raise ValueError(
            f"{stray[0]} in {root} names no split ({', '.join(SPLITS)}) and other files do; give "
            "the folder of one split, or one file"
        )
    return {split: groups[split] for split in _ORDER if split in groups}


def _grouped(names: Iterable[str], *, further: bool) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_split_of(name, further=further), []).append(name)
    return groups


def _split_of(name: str, *, further: bool) -> str:
    *folders, file = name.split("/")
    for folder in reversed(folders):
        if folder in SPLITS:
            return folder
        if further and (split := _split_of_folder(folder, [folder])):
            return split
    words = re.split(r"[-_.]", file)
    if found := next((word for word in words if word in SPLITS), ""):
        return found
    return next((s for word in _words(file) if (s := _split_of_word(word))), "") if further else ""
