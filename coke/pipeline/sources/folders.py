"""Folders of images: class folders, folders without classes, Tiny-ImageNet, ImageNet's flat val."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from coke.pipeline.sources import imagenet_truth
from coke.pipeline.sources.draft import Draft, Drafts, labelled_by_folder
from coke.pipeline.sources.labels import Label
from coke.pipeline.sources.layout_notes import (
    same_folders_inside,
    split_names_inside,
    unread_tables,
)
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import EXTENSIONS, Files, Other, is_image_name
from coke.pipeline.sources.splits import (
    SPLITS,
    UNLABELLED,
    SplitFolders,
    same_split_inside,
    split_folders,
)

_NO_IMAGE = "not an image file: its name ends otherwise"
_NO_SPLIT = "in no split: it lies beside the folders of the splits"


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits of a folder of images; keys are paths relative to the split's folder.

    :func:`~coke.pipeline.sources.splits.split_folders` says which folders are splits. A single
    split is taken for the source itself, so ``SRC`` and ``SRC/train`` give the same keys.

    An image's class is its first-level folder, with these exceptions: a file of annotations beside
    a split's images (Tiny-ImageNet's ``val_annotations.txt``) knows better, and so does ImageNet's
    ground truth about its flat ``val``; a split whose only folder is called ``images`` has no
    classes, nor has one with images outside of folders, nor one that is called unlabelled.

    Raises:
        ValueError: there are no images, or annotations do not fit them.
    """
    tops = {name.partition("/")[0] for name in listing.images}
    imageless = [name for name in SPLITS if name not in tops and listing.has_folder(name)]
    found = split_folders(listing.images, imageless if tops & set(SPLITS) else ())
    if found is None:
        draft = _draft(_Part.whole(listing), listing, labels)
        splits = {"": draft}
        return Drafts(splits=splits, notes=_whole(draft, labels) + _tables(listing, splits, labels))
    splits = {
        split: _joined([_Part.of(listing, found.wrapper, folder) for folder in folders], split,
                       listing, labels)
        for split, folders in found.folders.items()
    }  # fmt: skip
    truth = {name for draft in splits.values() for name in draft.label_files}
    prefixes = tuple(
        f"{found.wrapper}{folder}/" for folders in found.folders.values() for folder in folders
    )
    beside = [
        Other(name, _NO_SPLIT if is_image_name(name) else _NO_IMAGE)
        for name in listing.names
        if not name.startswith(prefixes) and name not in truth
    ]
    if len(splits) == 1:
        splits = {"": splits.popitem()[1]}
    notes = _lost(beside, found) + _tables(listing, splits, labels)
    return Drafts(splits=splits, beside=beside, notes=notes)


def _tables(listing: Listing, splits: dict[str, Draft], labels: str) -> list[str]:
    return unread_tables(listing, splits) if labels == "auto" else []


@dataclass(frozen=True)
class _Part:
    """A folder that is a split, or a part of one.

    Attributes:
        listing: the files in it.
        prefix: its path in the source, with a slash at its end; empty for the source itself.
        repeated: what to take off the images' names in it, see :func:`same_split_inside`.
    """

    listing: Listing
    prefix: str
    repeated: str

    @staticmethod
    def whole(listing: Listing) -> _Part:
        return _Part(listing, "", "")

    @staticmethod
    def of(listing: Listing, wrapper: str, folder: str) -> _Part:
        below = listing.below(f"{wrapper}{folder}")
        return _Part(below, f"{wrapper}{folder}/", same_split_inside(below.images, folder))


def _joined(parts: list[_Part], split: str, source: Listing, labels: str) -> Draft:
    """One split of several folders. Where a key occurs twice, each begins with its folder."""
    asked = "none" if labels == "auto" and split in UNLABELLED else labels
    found = [_draft(part, source, asked) for part in parts]
    if len(found) == 1:
        return found[0]
    keys = [key for draft in found for key in draft.keys]
    named = [
        replace(
            draft,
            keys=[f"{part.prefix}{key}" for key in draft.keys],
            others=[other._replace(key=f"{part.prefix}{other.key}") for other in draft.others],
        )
        for part, draft in zip(parts, found, strict=True)
    ]
    if len(set(keys)) < len(keys):
        keys = [key for draft in named for key in draft.keys]
    names = [
        f"{part.prefix}{name}"
        for part, draft in zip(parts, found, strict=True)
        for name in _files(draft).names
    ]
    return Draft(
        keys=keys,
        labels=[label for draft in found for label in draft.labels],
        images=Files(source.root, tuple(names)),
        origin=source.root,
        others=[other for draft in named for other in draft.others],
        label_files=[name for draft in found for name in draft.label_files],
        notes=[note for draft in found for note in draft.notes],
    )


def _files(draft: Draft) -> Files:
    assert isinstance(draft.images, Files)
    return draft.images


def _draft(part: _Part, source: Listing, labels: str) -> Draft:
    listing = part.listing
    names = listing.images
    ignored: list[str] = []
    if len(names) < len(listing.names):
        ignored = [name for name in listing.names if not is_image_name(name)]
    if not names:
        found = f"it holds {len(ignored)} other files" if ignored else "it is empty"
        raise ValueError(
            f"no images in {listing.root}: {found}; images are files that end in "
            f"{', '.join(EXTENSIONS)}"
        )
    keys = tuple(name.removeprefix(part.repeated) for name in names)
    draft = Draft(
        keys=keys,
        labels=[None] * len(keys),
        images=Files(listing.root, names),
        origin=listing.root,
    )
    draft = _labelled(draft, part, source, ignored, labels)
    read = {name.removeprefix(part.prefix) for name in draft.label_files}
    others = [Other(name, _NO_IMAGE) for name in ignored if name not in read]
    return replace(draft, others=others)


def _labelled(draft: Draft, part: _Part, source: Listing, ignored: list[str], labels: str) -> Draft:
    """The same images with labels from annotations, ground truth or folders, as asked."""
    flat = all("/" not in key for key in draft.keys)
    if flat and imagenet_truth.are_validation_names(draft.keys):
        # The truth is read even if labels are not wanted: keys must not depend on ``labels``.
        return _flat_validation(draft, part, source, labels)
    if labels == "none":
        return draft
    notes = [n for n in ignored if "/" not in n and n.endswith("_annotations.txt")]
    if len(notes) == 1 and labels == "auto":
        classes = _annotated(part.listing, notes[0], draft.keys)
        return replace(draft, labels=classes, label_files=[f"{part.prefix}{notes[0]}"])
    if labels == "auto" and {key.partition("/")[0] for key in draft.keys if "/" in key} == {
        "images"
    }:
        return draft
    direct = [key for key in draft.keys if "/" not in key]
    if labels == "auto" and direct:
        return replace(draft, notes=_loose_images(draft, direct))
    return labelled_by_folder(draft)


def _flat_validation(draft: Draft, part: _Part, source: Listing, labels: str) -> Draft:
    for prefix in _upwards(part.prefix):
        listing = source.below(prefix[:-1]) if prefix else source
        truth = imagenet_truth.validation_classes(listing, draft.keys)
        if truth is not None:
            keys = [f"{c}/{name}" for c, name in zip(truth.classes, draft.keys, strict=True)]
            classes: list[Label] = [None] * len(keys) if labels == "none" else [*truth.classes]
            files = [f"{prefix}{name}" for name in truth.files]
            return replace(draft, keys=keys, labels=classes, label_files=files)
    if labels == "none":
        return draft
    if labels == "folders":
        return labelled_by_folder(draft)
    note = (
        f"The images in {draft.origin} have no labels beside them: add "
        f"{imagenet_truth.ACCEPTED}, or move them into class folders."
    )
    return replace(draft, notes=[note])


def _upwards(prefix: str) -> Iterator[str]:
    """A folder, and all folders around it up to the source, each with a slash at its end."""
    while prefix:
        yield prefix
        prefix = prefix[:-1].rpartition("/")[0]
        prefix = f"{prefix}/" if prefix else ""
    yield ""


def _loose_images(draft: Draft, direct: list[str]) -> list[str]:
    """A note on a split without labels, if the user may have expected labels."""
    if len(direct) == len(draft.keys):
        return []
    return [
        f"{len(direct):,} of the {len(draft.keys):,} images of {draft.origin} lie outside of "
        f"folders (first: {direct[0]}), so no folder is taken for a class. If folders are "
        "classes, move these images."
    ]


def _whole(draft: Draft, labels: str) -> list[str]:
    """Notes on a source without splits."""
    names = _files(draft).names
    if notes := split_names_inside(names):
        return notes
    return _one_class(draft, labels) or (same_folders_inside(names) if labels == "auto" else [])


def _one_class(draft: Draft, labels: str) -> list[str]:
    """A note about the only class, when it looks like a folder around the classes."""
    (only, *more) = sorted({label for label in draft.labels if isinstance(label, str)}) or [""]
    if labels != "auto" or more or not only or not all(map(only.__eq__, draft.labels)):
        return []
    inner = {key.split("/")[1] if key.count("/") > 1 else "" for key in draft.keys}
    if "" in inner or len(inner) < 2:
        return []
    return [
        f"All images have the one class {only}. If the {len(inner):,} folders in it are the "
        f"classes, give {draft.origin}/{only} as the source."
    ]


def _lost(beside: list[Other], found: SplitFolders) -> list[str]:
    """A note about the images that are in no split, by their folder."""
    images = Counter(
        other.key.removeprefix(found.wrapper).rpartition("/")[0].partition("/")[0]
        for other in beside
        if other.reason == _NO_SPLIT
    )
    return [
        f"{count:,} {'image' if count == 1 else 'images'} "
        f"{f'in {folder}/' if folder else 'outside of folders'} {'is' if count == 1 else 'are'} in "
        f"no split ({', '.join(found.folders)}): rejected.tsv lists what is left out."
        for folder, count in images.items()
    ]


def _annotated(listing: Listing, notes: str, keys: Sequence[str]) -> list[str]:
    """Class of each image from lines of ``<file name> TAB <class> TAB ...``."""
    classes: dict[str, str] = {}
    for number, line in enumerate(listing.text(notes).splitlines(), 1):
        name, _, rest = line.partition("\t")
        if not line.strip():
            continue
        if not rest:
            raise ValueError(
                f"line {number} of {listing.path(notes)} is {line!r}; it should be a file name, a "
                "tab and a class"
            )
        classes[name] = rest.partition("\t")[0]
    if missing := [key for key in keys if key.rpartition("/")[2] not in classes]:
        raise ValueError(
            f"{listing.path(notes)} has no line for {len(missing)} images (first: {missing[0]}); "
            "complete it, or choose labels 'none' or 'folders'"
        )
    return [classes[key.rpartition("/")[2]] for key in keys]
