"""IDX files as MNIST and its relatives name them: ``train-images-idx3-ubyte`` and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coke.pipeline.sources import idx, storage
from coke.pipeline.sources.draft import Draft
from coke.pipeline.sources.listing import Listing

_PREFIXES = {"train": "train", "test": "t10k"}


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
        return str(self.file)

    def take(self, positions: Sequence[int]) -> IdxImages:
        return IdxImages(self.file, tuple(self.numbers[i] for i in positions))


def is_here(listing: Listing) -> bool:
    if listing.alone or storage.is_url(listing.root):
        return False
    return any(_images(listing, prefix) for prefix in _PREFIXES.values())


def drafts(listing: Listing, labels: str) -> dict[str, Draft]:
    """Train and test; keys are the numbers of the images, in decimal.

    Raises:
        ValueError: files are missing, damaged, or do not fit together.
    """
    if not is_here(listing):
        raise ValueError(
            f"no IDX files in {listing.src}; give a local folder with train-images-idx3-ubyte or "
            "t10k-images-idx3-ubyte (also .gz) in it"
        )
    found = {}
    for split, prefix in _PREFIXES.items():
        if images := _images(listing, prefix):
            found[split] = _draft(listing, images, prefix, labels)
    return found if len(found) > 1 else {"": found.popitem()[1]}


def _images(listing: Listing, prefix: str) -> Path | None:
    return idx.find(Path(listing.root), f"{prefix}-images", "idx3-ubyte")


def _draft(listing: Listing, images: Path, prefix: str, labels: str) -> Draft:
    count = idx.count_images(images)
    numbers = idx.find(Path(listing.root), f"{prefix}-labels", "idx1-ubyte")
    if numbers is None and labels == "folders":
        raise ValueError(
            f"{images} has no labels beside it ({prefix}-labels-idx1-ubyte is missing); "
            "add them, or choose labels 'none'"
        )
    given: Sequence[int] = (-1,) * count
    if numbers is not None and labels != "none":
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
        origin=str(images),
    )
