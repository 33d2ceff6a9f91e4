"""IDX files as MNIST and its relatives name them: ``train-images-idx3-ubyte`` and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coke.pipeline.sources import idx, storage
from coke.pipeline.sources.draft import Draft, Drafts, unread
from coke.pipeline.sources.keys import from_system, to_system
from coke.pipeline.sources.listing import Listing

#: ``train-images-idx3-ubyte``; EMNIST puts the name of one of its sets in front.
_NAME = re.compile(
    r"(?P<set>(?:.*[-_./])?)(?P<part>train|t10k|test)[-_](?P<what>images|labels)[-.]idx[123][-.]\w+"
    r"(?P<gz>\.gz)?",
    re.IGNORECASE,
)
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}


@dataclass(frozen=True)
class IdxImages:
    """Images in an IDX file, by number."""

    file: Path
    numbers: Sequence[int]

    def read(self, i: int) -> bytes:
        return idx.image_file(self.file, self.numbers[i])

    def describe(self, i: int) -> str:
        return f"image {self.numbers[i]} of {self.file}"

    def path(self, i: int) -> str:
        return from_system(str(self.file))

    def take(self, positions: Sequence[int]) -> IdxImages:
        return IdxImages(self.file, tuple(self.numbers[i] for i in positions))


@dataclass(frozen=True)
class _Files:
    """The files of one split, by their names."""

    images: str
    labels: str | None


def is_here(listing: Listing) -> bool:
    """Whether there are IDX files: in the folder itself, or below it and no other images are."""
    if storage.is_url(listing.root):
        return False
    likely = (name for name in listing.names if "idx" in name.lower())
    matches = [match for match in map(_NAME.fullmatch, likely) if match]
    found = [match[0] for match in matches if match["what"].lower() == "images"]
    beside = any("/" not in name for name in found)
    return beside or (bool(found) and not listing.images)


def drafts(listing: Listing, labels: str) -> Drafts:
    """Train and test; keys are the numbers of the images, in decimal.

    Raises:
        ValueError: files are missing, damaged, or do not fit together.
    """
    if not is_here(listing):
        raise ValueError(
            f"no IDX files in {listing.src}; give a local folder with train-images-idx3-ubyte or "
            "t10k-images-idx3-ubyte (also .gz) in it"
        )
    sets = _sets(listing)
    if len(sets) > 1:
        raise ValueError(
            f"{listing.src} holds the IDX files of several sets: "
            f"{', '.join(name.rstrip('-_.') or 'MNIST' for name in sets)}; give the file of the "
            "images of one, or a folder with one set"
        )
    (files,) = sets.values()
    found = {split: _draft(listing, files[split], labels) for split in sorted(files, reverse=True)}
    splits = found if len(found) > 1 else {"": found.popitem()[1]}
    return Drafts(splits=splits, beside=unread(listing, splits, "the images are in the IDX files"))


def _sets(listing: Listing) -> dict[str, dict[str, _Files]]:
    """The files of each split of each set. The unpacked file counts, where both are there."""
    found: dict[tuple[str, str, str], str] = {}
    for name in sorted(listing.names, key=lambda name: name.lower().endswith(".gz")):
        if match := _NAME.fullmatch(name):
            split = _SPLITS[match["part"].lower()]
            found.setdefault((match["set"], split, match["what"].lower()), name)
    sets: dict[str, dict[str, _Files]] = {}
    for (of_set, split, what), name in sorted(found.items()):
        if what == "images":
            labels = found.get((of_set, split, "labels")) or _labels_beside(listing, name)
            sets.setdefault(of_set, {})[split] = _Files(name, labels)
    return sets


def _labels_beside(listing: Listing, images: str) -> str | None:
    """The labels of a source that is the file of the images alone."""
    name = _labels_name(images)
    names = (name, f"{name}.gz") if listing.alone else ()
    return next((name for name in names if listing.has(name)), None)


def _labels_name(images: str) -> str:
    return images.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")


def _draft(listing: Listing, files: _Files, labels: str) -> Draft:
    images = Path(to_system(listing.path(files.images)))
    count = idx.count_images(images)
    if files.labels is None and labels == "folders":
        raise ValueError(
            f"{images} has no labels beside it "
            f"({_labels_name(files.images)} is missing); "
            "add them, or choose labels 'none'"
        )
    given: Sequence[int] = (-1,) * count
    if files.labels is not None and labels != "none":
        numbers = Path(to_system(listing.path(files.labels)))
        given = idx.read_labels(numbers)
        if len(given) != count:
            raise ValueError(
                f"{numbers} holds {len(given)} labels and {images} {count} images; "
                "download both again"
            )
    width = max(5, len(str(count - 1)))
    return Draft(
        keys=[f"{i:0{width}d}" for i in range(count)],
        labels=given,
        images=IdxImages(images, range(count)),
        origin=listing.path(files.images),
        opened=[files.images],
        inside=count,
        label_files=[files.labels] if files.labels else [],
        notes=() if files.labels else [f"{images} has no labels beside it."],
    )
