"""The last step of a layout: classes are numbered over all splits, and keys are sorted."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from coke.pipeline.sources.keys import is_utf8, key_bytes
from coke.pipeline.sources.labels import Label
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import Images, Other, Source

_MOST_CLASSES = 10_000_000
_BECAME_LABELS = "no image: its contents are the labels of images"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One split as its layout has it: in any order, labels as they are written.

    Everything of the source is counted once: as a candidate, as a file whose contents became
    labels, or among ``others``. A file whose contents are candidates (a tar, a table) is counted
    by its contents.

    Attributes:
        keys: one per candidate.
        labels: class names, or numbers (-1 = none), or None.
        images: where the bytes are.
        origin: what the keys are relative to.
        others: files, members or rows that are no candidates.
        classes: names of number labels, where the layout has them.
        opened: files of the listing that are counted by their contents.
        inside: how many members or rows those contents are.
        label_files: files of the listing that became labels.
        label_members: members of tars that became labels.
        notes: what the user should know about this split.
    """

    keys: Sequence[str]
    labels: Sequence[Label]
    images: Images
    origin: str
    others: Sequence[Other] = ()
    classes: tuple[str, ...] | None = None
    opened: Sequence[str] = ()
    inside: int = 0
    label_files: Collection[str] = ()
    label_members: Sequence[Other] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """The result of a layout: the splits, and the files of the listing that are in no split."""

    splits: dict[str, Draft]
    beside: Sequence[Other] = ()
    notes: Sequence[str] = ()


class Splits(dict[str, Source]):
    """The sources of a path or URL by split; one under the name ``""`` where there are no splits.

    Attributes:
        beside: files that are in no split; empty where there is one source.
        there: how many files there are, each tar and table counted by its contents.
        notes: what the user should know, in whole sentences.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        beside: Sequence[Other],
        there: int,
        notes: list[str],
    ) -> None:
        super().__init__(sources)
        self.beside = tuple(beside)
        self.there = there
        self.notes = notes


def unread(listing: Listing, splits: Mapping[str, Draft], what: str) -> list[Other]:
    """The files of a listing that no split has opened: the images are in other files."""
    used = {name for draft in splits.values() for name in (*draft.opened, *draft.label_files)}
    return [Other(name, f"not read: {what}") for name in listing.names if name not in used]


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


def finish(found: Drafts, listing: Listing) -> Splits:
    """Sorts candidates by key; gives a class the same number in all splits.

    Class names are numbered in the order of their UTF-8 bytes. Numbers stay as they are, and name
    their classes themselves where the layout does not.

    Raises:
        ValueError: two candidates have the same key, or labels make no sense together.
    """
    drafts, beside = found.splits, [*found.beside, *listing.apart]
    if len(drafts) == 1:
        (split, draft), beside = next(iter(drafts.items())), []
        drafts = {split: replace(draft, others=[*found.beside, *listing.apart, *draft.others])}
    labels, classes = _numbered(drafts)
    sources = {
        split: _sorted(draft, labels[split], classes, listing) for split, draft in drafts.items()
    }
    opened = {name for draft in drafts.values() for name in draft.opened}
    inside = sum(draft.inside for draft in drafts.values())
    there = len(listing.names) + len(listing.apart) - len(opened) + inside
    splits = Splits(
        sources, beside=beside, there=there, notes=[*found.notes, *_notes(drafts, sources)]
    )
    check_accounts(splits)
    return splits


def check_accounts(splits: Splits) -> None:
    """Asserts that everything that is there is counted once."""
    counted = sum(other.files for other in splits.beside)
    for source in splits.values():
        counted += len(source)
        counted += sum(other.files for other in (*source.others, *source.label_files))
    assert counted == splits.there, f"{counted} files are accounted for, {splits.there} are there"


def _notes(drafts: Mapping[str, Draft], sources: Mapping[str, Source]) -> list[str]:
    """The notes of the layouts, and a note on each split in which labels are missing."""
    notes = [note for draft in drafts.values() for note in draft.notes]
    notes += _alike(next(iter(sources.values())).classes)
    has_labels = any(source.classes for source in sources.values())
    for split, source in sources.items():
        missing = source.labels.count(-1)
        if not has_labels or not missing:
            continue
        where = f"split {split}" if split else source.origin
        what = "None" if missing == len(source) else f"{len(source) - missing:,}"
        has = "has" if what in ("None", "1") else "have"
        notes.append(f"{what} of the {len(source):,} images of {where} {has} a label.")
    return notes


def _alike(classes: Sequence[str]) -> list[str]:
    """A note on classes whose names a reader takes for the same."""
    seen: dict[str, str] = {}
    for name in classes:
        first = seen.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
        if first is not name:
            return [
                f"The classes {first!a} and {name!a} differ in capitals, spaces or "
                "accents' encoding alone, and are two classes."
            ]
    return []


def _sorted(
    draft: Draft, labels: Sequence[int], classes: tuple[str, ...], listing: Listing
) -> Source:
    encoded = [key_bytes(key) for key in draft.keys]
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
        others=tuple(draft.others),
        # A source that is a single file does not include the files beside it.
        label_files=(
            *(Other(name, _BECAME_LABELS) for name in filter(listing.is_listed, draft.label_files)),
            *draft.label_members,
        ),
    )


def _numbered(drafts: Mapping[str, Draft]) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    kinds = {split: set(draft.labels) - {None} for split, draft in drafts.items()}
    labels = set().union(*kinds.values())
    names = {label for label in labels if isinstance(label, str)}
    # Images in a folder whose name is no UTF-8 are rejected for their key, and their class with it.
    labels -= (unwritable := {name for name in names if not is_utf8(name)})
    names -= unwritable
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
    classes = tuple(sorted(names, key=key_bytes))
    index = {name: i for i, name in enumerate(classes)}
    return {
        split: [index.get(label, -1) if isinstance(label, str) else -1 for label in draft.labels]
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
