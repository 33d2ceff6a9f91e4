"""What does this path or URL hold? Looks, or is told, and hands over to the layout's module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from coke.pipeline.sources import folders, imagenet, mnist, parquet, shards, table
from coke.pipeline.sources.draft import Draft, finish
from coke.pipeline.sources.listing import Listing, list_source
from coke.pipeline.sources.source import Source, is_image_name


class _Layout(Protocol):
    def __call__(self, listing: Listing, labels: str) -> dict[str, Draft]: ...


_LAYOUTS: Mapping[str, _Layout] = {
    "folders": folders.drafts,
    "idx": mnist.drafts,
    "imagenet": imagenet.drafts,
    "parquet": parquet.drafts,
    "wds": shards.drafts,
    "table": table.drafts,
}
SOURCES = ("auto", *_LAYOUTS)
LABELS = ("auto", "folders", "none")
_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


def find_splits(
    src: str | Path, *, labels: str = "auto", source: str = "auto"
) -> dict[str, Source]:
    """What ``src`` holds: one source per split, or one under the name ``""``.

    Classes are numbered over all splits together.

    Args:
        src: a folder or file, or the URL of one (s3://, gs://, hf://, http(s)://).
        labels: ``"auto"`` takes the labels that the layout has; ``"folders"`` the first folder of
            each key; ``"none"`` none.
        source: the layout: ``"folders"``, ``"idx"``, ``"imagenet"`` (the official tars),
            ``"parquet"``, ``"wds"`` (WebDataset shards and other tars) or ``"table"`` (CSV, TSV).
            ``"auto"`` looks; see ``docs/sources.md``.

    Raises:
        ValueError: ``src`` is missing, cannot be read, holds no images, or is not what ``source``
            and ``labels`` say; or a package is missing.
    """
    for name, value, known in (("labels", labels, LABELS), ("source", source, SOURCES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    listing = list_source(src)
    layout = _sniffed(listing) if source == "auto" else source
    if layout in ("folders", "idx") and listing.alone:
        raise ValueError(f"source {src} is a file; {layout!r} needs the folder of the images")
    drafts = _LAYOUTS[layout](listing, labels)
    if labels == "none":
        drafts = {
            split: replace(draft, labels=[None] * len(draft.keys), classes=None)
            for split, draft in drafts.items()
        }
    return finish(drafts)


def _sniffed(listing: Listing) -> str:
    if listing.alone:
        return _sniffed_file(listing)
    if mnist.is_here(listing):
        return "idx"
    images = sum(map(is_image_name, listing.names))
    tars, parquets = len(listing.ending(".tar")), len(listing.ending(".parquet"))
    of_tars = "imagenet" if tars and imagenet.is_here(listing) else "wds"
    counts = {"folders": images, of_tars: tars, "parquet": parquets}
    there = [layout for layout, count in counts.items() if count]
    if len(there) > 1:
        raise ValueError(
            f"{listing.src} holds {images:,} image, {tars:,} .tar and {parquets:,} .parquet files; "
            f"choose a source: {' or '.join(map(repr, there))}"
        )
    if there:
        return there[0]
    if archives := listing.ending(*_ARCHIVES):
        raise ValueError(f"no images in {listing.src}, but {archives[0]}: unpack it first")
    if tables := [name for name in listing.ending(".csv", ".tsv") if "/" not in name]:
        raise ValueError(
            f"no images in {listing.src}; if {tables[0]} says where they are, choose source 'table'"
        )
    return "folders"


def _sniffed_file(listing: Listing) -> str:
    name = listing.names[0]
    if listing.ending(".tar"):
        return "imagenet" if imagenet.is_here(listing) else "wds"
    if listing.ending(".parquet"):
        return "parquet"
    if listing.ending(".csv", ".tsv"):
        return "table"
    if listing.ending(*_ARCHIVES):
        raise ValueError(f"source {listing.src} is a compressed archive; unpack it first")
    raise ValueError(
        f"source {listing.src} is a file of no known kind ({name}); give a folder, or a .tar, "
        ".parquet, .csv or .tsv file"
    )
