"""From what a layout found to finished sources: classes numbered over all splits, keys sorted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from coke.pipeline.sources.source import Images, Source

Label = int | str | None
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MOST_CLASSES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One split as its layout has it: in any order, labels as they are written.

    Attributes:
        keys: one per candidate.
        labels: class names, or numbers (-1 = none), or None.
        images: where the bytes are.
        origin: what the keys are relative to.
        ignored: keys of files that are no candidates.
        classes: names of number labels, where the layout has them.
    """

    keys: Sequence[str]
    labels: Sequence[Label]
    images: Images
    origin: str
    ignored: Sequence[str] = ()
    classes: tuple[str, ...] | None = None


def labelled_by_folder(draft: Draft) -> Draft:
    """Labels by the first folder of each key.

    Raises:
        ValueError: a key has no folder.
    """
    if direct := [key for key in draft.keys if "/" not in key]:
        raise ValueError(
            f"{len(direct)} images lie directly in {draft.origin} (first: {direct[0]!r}), so they "
            "have no class; move them into class folders, or choose labels 'none'"
        )
    seen: dict[str, str] = {}  # one string object per class, not per image
    names = (key.partition("/")[0] for key in draft.keys)
    return replace(draft, labels=[seen.setdefault(name, name) for name in names], classes=None)


def labels_of_text(texts: Sequence[str | None], keys: Sequence[str]) -> list[Label]:
    """Labels as they stand in text: numbers if all of them are, otherwise class names.

    Args:
        texts: one per image; None or blank = no label.
        keys: of the images, for messages.

    Raises:
        ValueError: some are numbers and some are not.
    """
    stripped = [None if text is None else text.strip() or None for text in texts]
    distinct = set(stripped) - {None}
    numeric = {text for text in distinct if text is not None and _INTEGER.fullmatch(text)}
    if numeric and numeric != distinct:
        number = next(i for i, text in enumerate(stripped) if text in numeric)
        name = next(i for i, text in enumerate(stripped) if text and text not in numeric)
        raise ValueError(
            f"the label of {keys[name]} is {stripped[name]!r} and that of {keys[number]} is "
            f"{stripped[number]}; labels are all numbers or all names"
        )
    if not numeric:
        return list(stripped)
    return [None if text is None else int(text) for text in stripped]


def finish(drafts: Mapping[str, Draft]) -> dict[str, Source]:
    """Sorts candidates by key; gives a class the same number in all splits.

    Class names are numbered in the order of their UTF-8 bytes. Numbers stay as they are, and name
    their classes themselves where the layout does not.

    Raises:
        ValueError: two candidates have the same key, or labels make no sense together.
    """
    labels, classes = _numbered(drafts)
    return {split: _sorted(draft, labels[split], classes) for split, draft in drafts.items()}


def _sorted(draft: Draft, labels: Sequence[int], classes: tuple[str, ...]) -> Source:
    encoded = [os.fsencode(key) for key in draft.keys]
    order = sorted(range(len(encoded)), key=encoded.__getitem__)
    for a, b in pairwise(order):
        if encoded[a] == encoded[b]:
            raise ValueError(
                f"two images in {draft.origin} have the key {draft.keys[a]!r}: "
                f"{draft.images.describe(a)} and {draft.images.describe(b)}; keys identify "
                "images, so rename or remove one"
            )
    in_order = order == list(range(len(order)))
    return Source(
        keys=tuple(draft.keys if in_order else (draft.keys[i] for i in order)),
        labels=tuple(labels if in_order else (labels[i] for i in order)),
        classes=classes,
        images=draft.images if in_order else draft.images.take(order),
        origin=draft.origin,
        ignored=tuple(draft.ignored),
    )


def _numbered(drafts: Mapping[str, Draft]) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    kinds = {split: set(draft.labels) - {None} for split, draft in drafts.items()}
    labels = set().union(*kinds.values())
    names = {label for label in labels if isinstance(label, str)}
    if not names:
        numbers = {label for label in labels if isinstance(label, int)}
        classes = _classes_of_numbers(drafts, numbers)
        return {
            split: [label if isinstance(label, int) else -1 for label in draft.labels]
            for split, draft in drafts.items()
        }, classes
    if names != labels:
        number, name = min(labels - names, key=str), min(names)
        raise ValueError(
            f"labels are numbers (such as {number}) in one place of "
            f"{_origins(drafts)} and names (such as {name!r}) in "
            "another; use one or the other"
        )
    classes = tuple(sorted(names, key=os.fsencode))
    index = {name: i for i, name in enumerate(classes)}
    return {
        split: [index[label] if isinstance(label, str) else -1 for label in draft.labels]
        for split, draft in drafts.items()
    }, classes


def _classes_of_numbers(drafts: Mapping[str, Draft], numbers: set[int]) -> tuple[str, ...]:
    named = {draft.classes: draft.origin for draft in drafts.values() if draft.classes is not None}
    if len(named) > 1:
        (a, at), (b, there) = list(named.items())[:2]
        raise ValueError(
            f"{at} names {len(a)} classes ({', '.join(a[:3])}, ...) and {there} names {len(b)} "
            f"({', '.join(b[:3])}, ...); splits of one source share their classes"
        )
    most = len(next(iter(named))) if named else _MOST_CLASSES
    for number in (min(numbers, default=-1), max(numbers, default=-1)):
        if not -1 <= number < most:
            raise ValueError(
                f"a label in {_origins(drafts)} is {number}; labels count classes from 0 to below "
                f"{most:,}, or are -1 for none"
            )
    return next(iter(named)) if named else tuple(map(str, range(1 + max(numbers, default=-1))))


def _origins(drafts: Mapping[str, Draft]) -> str:
    return " and ".join(dict.fromkeys(draft.origin for draft in drafts.values()))
