"""Finds the layout of a path or URL, and calls the module of that layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from coke.pipeline.remote import web
from coke.pipeline.sources import (
    arrow,
    cifar,
    folders,
    imagenet,
    mnist,
    parquet,
    shards,
    storage,
    table,
)
from coke.pipeline.sources.draft import Draft, Drafts, Splits, finish
from coke.pipeline.sources.listing import Listing, list_source
from coke.pipeline.sources.unpack import TAR_NAMES, compression_of, unpacked_tars


class _Layout(Protocol):
    def __call__(self, listing: Listing, labels: str) -> Drafts: ...


_LAYOUTS: Mapping[str, _Layout] = {
    "arrow": arrow.drafts,
    "cifar": cifar.drafts,
    "folders": folders.drafts,
    "idx": mnist.drafts,
    "imagenet": imagenet.drafts,
    "parquet": parquet.drafts,
    "wds": shards.drafts,
    "table": table.drafts,
}
SOURCES = ("auto", *_LAYOUTS)
LABELS = ("auto", "folders", "none")
_OF_TARS = ("imagenet", "wds")
_BY_PARTS = (*_OF_TARS, "parquet")  # of their files, images are read by offset
_ARCHIVES = (".zip", ".7z", ".rar")
_USTAR = slice(257, 262)  # where a tar says what it is


def find_splits(
    src: str | Path, *, labels: str = "auto", source: str = "auto", scratch: Path | None = None
) -> Splits:
    """The images of ``src``: one source per split, or one under the name ``""``.

    Classes are numbered over all splits together. Every file that is there is in a split, or among
    the ``others`` of one, or ``beside`` them, with a reason.

    Args:
        src: a folder or file, or the URL of one (s3://, gs://, hf://, http(s)://).
        labels: ``"auto"`` takes the labels that the layout has; ``"folders"`` the first folder of
            each key; ``"none"`` none.
        source: the layout: ``"arrow"`` (Hugging Face's ``save_to_disk``), ``"cifar"`` (CIFAR's
            own batches), ``"folders"``, ``"idx"``, ``"imagenet"`` (the official tars),
            ``"parquet"``, ``"wds"`` (WebDataset shards and other tars) or ``"table"`` (CSV, TSV).
            ``"auto"`` looks; see ``docs/sources.md``.
        scratch: a folder for unpacked copies of compressed tars, which must stay as long as the
            sources are read; None to refuse such tars.

    Raises:
        ValueError: ``src`` is missing, cannot be read, holds no images, or is not what ``source``
            and ``labels`` say; or a package is missing.
    """
    for name, value, known in (("labels", labels, LABELS), ("source", source, SOURCES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    listing = list_source(src)
    layout = _sniffed(listing) if source == "auto" else source
    if layout == "folders" and listing.alone:
        raise ValueError(f"source {src} is a file; {layout!r} needs the folder of the images")
    if layout in _OF_TARS:
        listing, layout = _of_tars(listing, layout, scratch, is_sniffed=source == "auto")
    if layout in _BY_PARTS and listing.alone:
        _check_parts(listing.path(listing.names[0]))
    found = _LAYOUTS[layout](listing, labels)
    if labels == "none":
        found = replace(found, splits={s: _unlabelled(draft) for s, draft in found.splits.items()})
    if listing.unpacked:
        note = f"Compressed tars ({len(listing.unpacked):,}) are unpacked into {scratch} meanwhile."
        found = replace(found, notes=[note, *found.notes])
    return finish(found, listing)


def _check_parts(path: str) -> None:
    """Refuses a server that would send a whole file for each image in it."""
    if web.is_web(path) and not web.gives_parts(path):
        raise ValueError(
            f"the server of {path} sends whole files only, and images in it are read one by one; "
            "download the file, and give its path"
        )


def _unlabelled(draft: Draft) -> Draft:
    return replace(draft, labels=[None] * len(draft.keys), classes=None)


def _of_tars(
    listing: Listing, layout: str, scratch: Path | None, *, is_sniffed: bool
) -> tuple[Listing, str]:
    """The same tars, unpacked where they are compressed, and which of the layouts of tars it is."""
    if listing.alone:
        listing = unpacked_tars(listing, listing.names, scratch)
    if is_sniffed and imagenet.is_here(listing):
        layout = "imagenet"
    if not listing.alone:
        tars = TAR_NAMES if layout == "wds" else (".tar",)
        listing = unpacked_tars(listing, listing.ending(*tars), scratch)
    return listing, layout


def _sniffed(listing: Listing) -> str:
    if listing.alone:
        return _sniffed_file(listing)
    if mnist.is_here(listing):
        return "idx"
    if cifar.is_here(listing):
        return "cifar"
    images = len(listing.images)
    tars, parquets = len(listing.ending(".tar")), len(listing.ending(".parquet"))
    counts = {"folders": images, "wds": tars, "parquet": parquets}
    there = [layout for layout, count in counts.items() if count]
    if len(there) > 1:
        of_tars = "imagenet" if tars and imagenet.is_here(listing) else "wds"
        choices = [of_tars if name == "wds" else name for name in there]
        raise ValueError(
            f"{listing.src} holds {images:,} image, {tars:,} .tar and {parquets:,} .parquet files; "
            f"choose a source: {' or '.join(map(repr, choices))}"
        )
    if there:
        return there[0]
    if listing.ending(*TAR_NAMES):
        return "wds"
    if listing.ending(".arrow"):
        return "arrow"
    if archives := listing.ending(*_ARCHIVES):
        raise ValueError(f"no images in {listing.src}, but {archives[0]}: unpack it first")
    if tables := [name for name in listing.ending(".csv", ".tsv") if "/" not in name]:
        raise ValueError(
            f"no images in {listing.src}; if {tables[0]} says where they are, choose source 'table'"
        )
    return "folders"


def _sniffed_file(listing: Listing) -> str:
    """The layout of a single file, by its name, or else by its first bytes."""
    name, path = listing.names[0], listing.path(listing.names[0])
    if listing.ending(*TAR_NAMES):
        return "wds"
    if listing.ending(".parquet", ".arrow"):
        return name.lower().rpartition(".")[2]
    if mnist.is_here(listing):
        return "idx"
    if listing.ending(".csv", ".tsv"):
        return "table"
    if not listing.ending(*_ARCHIVES):
        with storage.opened(path) as file:
            head = file.read(512) or b""
        if head[_USTAR] == b"ustar" or compression_of(path):
            return "wds"
        if head.startswith((b"PAR1", b"ARROW1")):
            return "parquet" if head.startswith(b"PAR1") else "arrow"
    else:
        raise ValueError(f"source {listing.src} is an archive that coke does not read; unpack it")
    raise ValueError(
        f"source {listing.src} is a file of no known kind ({name}); give a folder, or a .tar, "
        ".parquet, .csv or .tsv file"
    )
