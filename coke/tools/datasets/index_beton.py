"""`coke index`: a `.beton` that FFCV wrote becomes a data set, without copying its images.

The data set is a folder of index files and a link to the beton.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from coke.files.kind import check_free
from coke.files.publish import published
from coke.pipeline.containers.beton import IMAGE, INT, Beton, StoredImages
from coke.pipeline.containers.beton_container import beton_name
from coke.pipeline.dataset.index import INDEX_DTYPE, JPEG
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.dataset.write_index import write_index
from coke.pipeline.images.pixel_limit import no_pixel_limit
from coke.tools.datasets.dataset_kind import DATASET

#: Names of fields that are taken for the label if none is given; an earlier name goes first.
LABEL_NAMES = ("label", "labels", "target", "targets", "class", "y")
NONE = "none"
_LARGEST_LENGTH = 2**32 - 1  # the index keeps lengths as 32 bits
_MOST_CLASSES = 10_000_000
_STRIDE = 1 << 24  # bytes that are hashed at a time between records


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """The result of an indexing. ``fields`` names the field of images, labels and ids."""

    out: Path
    images: int
    raw: int
    classes: int
    fields: dict[str, str | None]
    seconds: float


def index_beton(
    file: str | Path,
    out: str | Path | None = None,
    *,
    image: str | None = None,
    label: str | None = None,
    id_field: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> IndexReport:
    """Makes a data set of a beton: index files, and a relative link to the beton.

    The whole file is read once, for the checksums. JPEG headers are compared with the file's
    metadata. Pixels are not decoded; `coke verify --decode all` decodes them.

    Args:
        file: the beton.
        out: folder of the data set; by default beside the beton, named as it without ``.beton``.
        image: field of the images; by default the only field of images.
        label: int field of class labels, or ``"none"``; by default a field named in
            :data:`LABEL_NAMES`, or else the only int field besides the id.
        id_field: int field that numbers the samples, or ``"none"``; by default a field ``id``
            whose numbers are all different. Ids follow the order of the numbers, and keys are the
            numbers. Without a field, ids and keys are the sample's place in the file.
        overwrite: replace the data set that is at ``out``.
        console: receives progress and summary.

    Raises:
        ValueError: ``file`` is no beton, is damaged, lacks a named field, or holds images that
            cannot be stored; or ``out`` is taken.
    """
    file = Path(file)
    console = console or Console()
    if not file.is_file():
        raise ValueError(f"{file} is no file; give a .beton that FFCV wrote")
    if out is None and not file.suffix:
        raise ValueError(f"{file} has no suffix to leave out; name the folder of the data set")
    out = file.with_suffix("") if out is None else Path(out)
    check_free(out, overwrite=overwrite, kind=DATASET)
    started = time.monotonic()
    beton = Beton(file)
    if not len(beton):
        raise ValueError(f"{file} holds no samples")
    image = image or _image_field(beton)
    images = beton.images(image)
    numbers, id_field = _numbers(beton, id_field)
    labels, label = _labels(beton, label, id_field)
    _check_lengths(beton, images)
    order = np.argsort(numbers, kind="stable")  # sample of each id

    rows = np.zeros(len(beton), dtype=INDEX_DTYPE)
    for name in ("offset", "length", "height", "width", "encoding"):
        rows[name] = getattr(images, name)[order]
    rows["label"] = labels[order]
    classes = [str(i) for i in range(int(labels.max()) + 1)]
    fields = {"image": image, "label": label, "id": id_field}
    link = beton_name(0)
    with (
        published(out, overwrite=overwrite, kind=DATASET) as folder,
        Progress(console=console) as progress,
    ):
        target = os.path.relpath(file.resolve(), out.resolve())
        (folder / link).symlink_to(target)
        sha256, crc32 = _read_through(beton, rows, progress)
        container = Container(name=link, size=beton.size, sha256=sha256, start=0, stop=len(beton))
        (folder / "rejected.tsv").write_text("key\treason\n", encoding="utf-8")
        write_index(
            folder,
            rows=rows,
            crc32=crc32,
            keys=[f"{number:09d}" for number in numbers[order].tolist()],
            classes=classes,
            containers=[container],
            rejected=0,
            settings={"indexed": file.name, "fields": fields},
            storage="ffcv",
        )
    report = IndexReport(
        out=out,
        images=len(beton),
        raw=int((rows["encoding"] != JPEG).sum()),
        classes=len(classes),
        fields=fields,
        seconds=time.monotonic() - started,
    )
    console.print(_summary(report), highlight=False, soft_wrap=True)
    return report


def _image_field(beton: Beton) -> str:
    names = [field.name for field in beton.fields if field.type_id == IMAGE]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(
            f"{beton.path} has {len(names)} fields of images ({found}); name one with --image"
        )
    return names[0]


def _int_field(beton: Beton, name: str, option: str) -> NDArray[np.int64]:
    names = [field.name for field in beton.fields if field.type_id == INT]
    if name not in names:
        raise ValueError(
            f"{beton.path} has no int field {name!r}; give {option} one of "
            f"{', '.join([*names, NONE])}"
        )
    return beton.column(name).astype(np.int64)


def _numbers(beton: Beton, name: str | None) -> tuple[NDArray[np.int64], str | None]:
    """The numbers of the samples (N,), all different, and the field that they come from."""
    places = np.arange(len(beton), dtype=np.int64)
    if name == NONE:
        return places, None
    by_default = any(f.name == "id" and f.type_id == INT for f in beton.fields)
    if name is None and not by_default:
        return places, None
    numbers = _int_field(beton, name or "id", "--id")
    if len(np.unique(numbers)) == len(numbers) and numbers.min() >= 0:
        return numbers, name or "id"
    if name is None:
        return places, None
    raise ValueError(
        f"{beton.path}: field {name!r} does not number the samples (its numbers are negative or "
        "come twice); choose another field, or --id none"
    )


def _labels(
    beton: Beton, name: str | None, id_field: str | None
) -> tuple[NDArray[np.int64], str | None]:
    """The labels of the samples (N,), -1 = none, and the field that they come from."""
    ints = [f.name for f in beton.fields if f.type_id == INT and f.name != id_field]
    if name is None:
        known = [known for known in LABEL_NAMES if known in ints]
        name = known[0] if known else ints[0] if len(ints) == 1 else NONE
    if name == NONE:
        return np.full(len(beton), -1, dtype=np.int64), None
    labels = _int_field(beton, name, "--label")
    if labels.min() < -1 or labels.max() >= _MOST_CLASSES:
        raise ValueError(
            f"{beton.path}: field {name!r} holds {labels.min()}..{labels.max()}; labels go from 0 "
            "(-1 for none) to the number of classes: choose another field, or --label none"
        )
    return labels, name


def _check_lengths(beton: Beton, images: StoredImages) -> None:
    if int(images.length.max()) > _LARGEST_LENGTH:
        sample = int(images.length.argmax())
        raise ValueError(
            f"{beton.path}: sample {sample} has {int(images.length[sample])} bytes; an image may "
            f"have {_LARGEST_LENGTH}"
        )


def _read_through(
    beton: Beton, rows: NDArray[np.void], progress: Progress
) -> tuple[str, NDArray[np.uint32]]:
    """SHA-256 of the file and CRC-32 of each id's image, from one pass in the file's order."""
    crc32 = np.zeros(len(rows), dtype=np.uint32)
    sha256, hashed = hashlib.sha256(), 0
    task = progress.add_task(f"reading {beton.path.name}", total=beton.size)

    with (
        beton.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):

        def hash_up_to(end: int) -> None:
            nonlocal hashed
            while hashed < end:
                step = min(_STRIDE, end - hashed)
                sha256.update(view[hashed : hashed + step])
                hashed += step
            progress.update(task, completed=hashed)

        for i in np.argsort(rows["offset"], kind="stable").tolist():
            start, length = int(rows["offset"][i]), int(rows["length"][i])
            hash_up_to(start + length)
            crc32[i] = zlib.crc32(view[start : start + length])
            if rows["encoding"][i] == JPEG:
                problem = _header_problem(data[start : start + length], rows[i])
                if problem:
                    raise ValueError(f"{beton.path}: image at offset {start}: {problem}")
        hash_up_to(beton.size)
    return sha256.hexdigest(), crc32


def _header_problem(data: bytes, row: np.void) -> str | None:
    """How the header of a stored JPEG contradicts the file's metadata; None if it does not."""
    try:
        with no_pixel_limit(), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            size, mode = image.size, image.mode
    except (OSError, ValueError, SyntaxError):
        return "is no JPEG, though the file says so"
    if size != (int(row["width"]), int(row["height"])):
        said = f"{int(row['width'])}x{int(row['height'])}"
        return f"has {size[0]}x{size[1]} pixels, the file says {said}"
    if mode not in ("RGB", "L"):
        return f"has colour mode {mode}; only RGB and gray are read"
    return None


def _summary(report: IndexReport) -> str:
    label = f"labels from {report.fields['label']!r}" if report.fields["label"] else "no labels"
    ids = f"ids from {report.fields['id']!r}" if report.fields["id"] else "ids by place"
    return (
        f"{report.out}: {report.images:,} images from field {report.fields['image']!r} "
        f"({report.raw:,} raw), {label}, {ids}, {report.classes:,} classes, {report.seconds:.1f} s"
    )
