"""The classes of ImageNet's validation images, from any of the files that people have of them."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from coke.pipeline.sources import storage
from coke.pipeline.sources.listing import Listing

_SYNSETS = (
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_synset_labels.txt",
    "validation_synset_labels.txt",
)
_KAGGLE = "LOC_val_solution.csv"
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
ACCEPTED = (
    f"{_SYNSETS[0]} (one wnid per line, in the order of the images), {_KAGGLE} or {_DEVKIT}.tar.gz"
)
_WNID = re.compile(r"n\d{8}")
_VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}\.\w+")


@dataclass(frozen=True)
class Truth:
    """The class (wnid) of each image, and the files that say so, by their names."""

    classes: list[str]
    files: tuple[str, ...]


def are_validation_names(names: Sequence[str]) -> bool:
    """Whether these are the names of ImageNet's validation images."""
    return bool(names) and all(map(_VALIDATION.fullmatch, names))


def validation_classes(listing: Listing, names: Sequence[str]) -> Truth | None:
    """Classes of validation images, from a file of them in a listing; None if there is none.

    Args:
        listing: where to look.
        names: file names such as ``ILSVRC2012_val_00000001.JPEG``; the number says which line of
            a list in order belongs to it.

    Raises:
        ValueError: what is there does not fit the images.
    """
    for name in _SYNSETS:
        if listing.has(name):
            classes = _in_order(listing.text(name).split(), names, listing.path(name))
            return Truth(classes, (name,))
    if listing.has(_KAGGLE):
        return Truth(_kaggle(listing, names), (_KAGGLE,))
    for folder in ("", "data/", f"{_DEVKIT}/data/"):
        files = (folder + _TRUTH, folder + _META)
        if all(map(listing.has, files)):
            truth, meta = (storage.read(listing.path(file)) for file in files)
            return Truth(_devkit(truth, meta, names, listing.path(files[0])), files)
    if listing.has(f"{_DEVKIT}.tar.gz"):
        path = listing.path(f"{_DEVKIT}.tar.gz")
        return Truth(_devkit(*_from_archive(path), names, path), (f"{_DEVKIT}.tar.gz",))
    return None


def _in_order(wnids: Sequence[str], names: Sequence[str], path: str) -> list[str]:
    classes = []
    for name in names:
        digits = re.search(r"(\d+)\.\w+$", name)
        if digits is None or not 1 <= int(digits[1]) <= len(wnids):
            raise ValueError(
                f"{path} has {len(wnids)} lines, none of them for {name}; is it for other images?"
            )
        classes.append(wnids[int(digits[1]) - 1])
    if wrong := next((wnid for wnid in classes if not _WNID.fullmatch(wnid)), None):
        raise ValueError(f"{path} says {wrong!r} where a wnid such as n01440764 should be")
    return classes


def _kaggle(listing: Listing, names: Sequence[str]) -> list[str]:
    """Lines of ``ILSVRC2012_val_00000001,n01751748 <box> ...``."""
    path = listing.path(_KAGGLE)
    table = {}
    for line in listing.text(_KAGGLE).splitlines()[1:]:
        stem, _, boxes = line.partition(",")
        table[stem] = boxes.split(" ")[0]
    for name in names:
        wnid = table.get(name.partition(".")[0], "nothing")
        if not _WNID.fullmatch(wnid):
            raise ValueError(f"{path} says {wnid} about {name} where it should name a wnid")
    return [table[name.partition(".")[0]] for name in names]


def _devkit(truth: bytes, meta: bytes, names: Sequence[str], path: str) -> list[str]:
    """The devkit's ground truth is in numbers of its own, which only ``meta.mat`` explains."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError(
            f"the labels in {path} are explained by {_META}, which needs scipy: "
            f"pip install 'coke[imagenet]', or add {_SYNSETS[0]} (one wnid per line)"
        ) from error
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        wnids = [wnid[int(line)] for line in truth.split()]
    except (KeyError, ValueError, TypeError, IndexError, NotImplementedError, OSError) as error:
        raise ValueError(f"{path} and its {_META} do not fit: {error!r}; extract again") from error
    return _in_order(wnids, names, path)


def _from_archive(path: str) -> tuple[bytes, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(storage.read(path)), mode="r:gz") as archive:
            found = {info.name.rpartition("/")[2]: info for info in archive if info.isfile()}
            files = [archive.extractfile(found[name]) for name in (_TRUTH, _META)]
            truth, meta = (file.read() for file in files if file is not None)
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged or holds no {_TRUTH} and {_META} ({error!r}); download it again"
        ) from error
    return truth, meta
