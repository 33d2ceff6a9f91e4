"""One labelled collection in every layout: does each give the same ids, labels and bytes?

Writes the collection (ImageNet JPEGs from COKE_TEST_DATA, or synthetic ones) once per layout,
ingests each into each format, and prints a Markdown table of count, hash of ids and labels, and
seconds. Run it as ``python benchmarks/sources.py [IMAGES]``; exit status 1 if any two differ.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest


class Picture(NamedTuple):
    """An image as class folders have it: ``key`` is ``<wnid>/<file name>``."""

    key: str
    data: bytes

    @property
    def wnid(self) -> str:
        return self.key.partition("/")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


def synthetic(count: int, classes: int = 3) -> list[Picture]:
    """Small JPEGs, no two alike, in the order of their keys."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (16 + i % 5, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        wnid = f"n{1440764 + i % classes:08d}"
        pictures.append(Picture(f"{wnid}/{wnid}_{i}.JPEG", buffer.getvalue()))
    return sorted(pictures, key=lambda picture: picture.key.encode())


def imagenet_sample(path: Path, count: int) -> list[Picture]:
    """The first images of ``imagenet-sample.tar``, in the order of their keys."""
    with tarfile.open(path) as tar:
        members = [info for info in tar if info.name.endswith(".JPEG")]
        members.sort(key=lambda info: info.name.encode())
        return [
            Picture(info.name.partition("/")[2], file.read())
            for info in members[:count]
            if (file := tar.extractfile(info)) is not None
        ]


def as_validation(pictures: Sequence[Picture]) -> list[Picture]:
    """The same images under the names of ImageNet's validation images, numbered across classes."""
    numbers = np.random.default_rng(1).permutation(len(pictures)) + 1
    named = [
        Picture(f"{picture.wnid}/ILSVRC2012_val_{number:08d}.JPEG", picture.data)
        for picture, number in zip(pictures, numbers.tolist(), strict=True)
    ]
    return sorted(named, key=lambda picture: picture.key.encode())


def wnids(pictures: Iterable[Picture]) -> list[str]:
    return sorted({picture.wnid for picture in pictures})


def write_folders(root: Path, pictures: Sequence[Picture]) -> Path:
    for picture in pictures:
        (root / picture.key).parent.mkdir(parents=True, exist_ok=True)
        (root / picture.key).write_bytes(picture.data)
    return root


def tar_bytes(files: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _class_tars(pictures: Sequence[Picture]) -> list[tuple[str, bytes]]:
    return [
        (f"{wnid}.tar", tar_bytes((p.name, p.data) for p in pictures if p.wnid == wnid))
        for wnid in wnids(pictures)
    ]


def write_train_tar(root: Path, pictures: Sequence[Picture]) -> Path:
    """ILSVRC2012_img_train.tar: tars in a tar."""
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(_class_tars(pictures)))
    return root / "ILSVRC2012_img_train.tar"


def write_class_tars(root: Path, pictures: Sequence[Picture]) -> Path:
    for name, data in _class_tars(pictures):
        (root / name).write_bytes(data)
    return root


def write_val_tar(root: Path, pictures: Sequence[Picture]) -> Path:
    """ILSVRC2012_img_val.tar and a synset list; of :func:`as_validation`."""
    in_order = sorted(pictures, key=lambda picture: picture.name)
    tar = tar_bytes((picture.name, picture.data) for picture in in_order)
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar)
    lines = "".join(f"{picture.wnid}\n" for picture in in_order)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(lines, encoding="utf-8")
    return root


def _write_shards(
    root: Path, pictures: Sequence[Picture], beside: Callable[[Picture], list[tuple[str, bytes]]]
) -> Path:
    shuffled = np.random.default_rng(2).permutation(len(pictures)).tolist()
    for number in range(3):
        files: list[tuple[str, bytes]] = []
        for i in shuffled[number::3]:
            files += [(pictures[i].key, pictures[i].data), *beside(pictures[i])]
        (root / f"shard-{number:06d}.tar").write_bytes(tar_bytes(files))
    return root


def write_shards_cls(root: Path, pictures: Sequence[Picture]) -> Path:
    numbers = {wnid: i for i, wnid in enumerate(wnids(pictures))}

    def label(picture: Picture) -> list[tuple[str, bytes]]:
        return [(picture.key.replace(".JPEG", ".cls"), str(numbers[picture.wnid]).encode())]

    return _write_shards(root, pictures, label)


def write_shards_json(root: Path, pictures: Sequence[Picture]) -> Path:
    def label(picture: Picture) -> list[tuple[str, bytes]]:
        about = {"label": picture.wnid, "caption": "é" * 300}
        return [(picture.key.replace(".JPEG", ".json"), json.dumps(about).encode())]

    return _write_shards(root, pictures, label)


def write_plain_tar(root: Path, pictures: Sequence[Picture]) -> Path:
    (root / "images.tar").write_bytes(tar_bytes((f"./{p.key}", p.data) for p in pictures))
    return root / "images.tar"


def write_parquet(root: Path, pictures: Sequence[Picture], rows: int = 5) -> Path:
    """As the Hugging Face ``datasets`` library writes: a struct, class names in the metadata."""
    from pyarrow import parquet

    for number, table in enumerate(_tables(pictures)):
        path = root / f"train-{number:05d}-of-00003.parquet"
        parquet.write_table(table, path, row_group_size=rows)
    return root


def write_arrow(root: Path, pictures: Sequence[Picture]) -> Path:
    """As ``save_to_disk`` of ``datasets`` writes: streams of batches, and their names."""
    from pyarrow import ipc

    names = []
    for number, table in enumerate(_tables(pictures)):
        names.append(f"data-{number:05d}-of-00003.arrow")
        with ipc.new_stream(root / names[-1], table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    files = [{"filename": name} for name in names]
    (root / "state.json").write_text(json.dumps({"_data_files": files}), encoding="utf-8")
    return root


def _tables(pictures: Sequence[Picture]) -> Iterator[Any]:
    """The pictures in three tables: a struct, class names in the metadata."""
    import pyarrow as pa

    names = wnids(pictures)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    about = json.dumps({"info": {"features": features}})
    for number in range(3):
        part = pictures[number::3]
        cells = [{"bytes": picture.data, "path": picture.key} for picture in part]
        image = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        label = pa.array([names.index(picture.wnid) for picture in part], pa.int64())
        table = pa.table({"image": image, "label": label})
        yield table.replace_schema_metadata({"huggingface": about})


def write_plain_parquet(root: Path, pictures: Sequence[Picture]) -> Path:
    """Bytes, path and class name in columns of their own."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "image": pa.array([picture.data for picture in pictures], pa.binary()),
        "path": [picture.key for picture in pictures],
        "label": [picture.wnid for picture in pictures],
    }
    parquet.write_table(pa.table(columns), root / "images.parquet", row_group_size=7)
    return root / "images.parquet"


def _write_table(root: Path, name: str, delimiter: str, pictures: Sequence[Picture]) -> Path:
    write_folders(root / "jpegs", pictures)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["label", "filename"])
        writer.writerows([picture.wnid, picture.key] for picture in reversed(pictures))
    (root / name).rename(root / "jpegs" / name)  # paths are relative to the table
    return root / "jpegs" / name


def write_csv(root: Path, pictures: Sequence[Picture]) -> Path:
    return _write_table(root, "labels.csv", ",", pictures)


def write_tsv(root: Path, pictures: Sequence[Picture]) -> Path:
    return _write_table(root, "labels.tsv", "\t", pictures)


def write_data_set(root: Path, pictures: Sequence[Picture]) -> Path:
    """A data set that coke made of class folders."""
    write_folders(root / "src", pictures)
    ingest(root / "src", root / "data", workers=1, shard_size=10, console=Console(quiet=True))
    return root / "data"


class Layout(NamedTuple):
    """How to write a layout, the options that read it, and what has to be installed."""

    write: Callable[[Path, Sequence[Picture]], Path]
    source: str
    labels: str = "auto"
    validation: bool = False
    needs: str = "coke"


LAYOUTS = {
    "class folders": Layout(write_folders, "folders"),
    "ILSVRC2012_img_train.tar": Layout(write_train_tar, "imagenet"),
    "class tars": Layout(write_class_tars, "imagenet"),
    "parquet, Hugging Face": Layout(write_parquet, "parquet", needs="pyarrow"),
    "parquet, plain columns": Layout(write_plain_parquet, "parquet", needs="pyarrow"),
    "Arrow, save_to_disk": Layout(write_arrow, "arrow", needs="pyarrow"),
    "WebDataset, .cls": Layout(write_shards_cls, "wds"),
    "WebDataset, .json": Layout(write_shards_json, "wds"),
    "one tar, --labels folders": Layout(write_plain_tar, "wds", labels="folders"),
    "CSV": Layout(write_csv, "table"),
    "TSV": Layout(write_tsv, "table"),
    "a coke data set": Layout(write_data_set, "wds"),
    "val in class folders": Layout(write_folders, "folders", validation=True),
    "ILSVRC2012_img_val.tar": Layout(write_val_tar, "imagenet", validation=True),
}


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    sample = Path(os.environ.get("COKE_TEST_DATA", "")) / "imagenet-sample.tar"
    pictures = imagenet_sample(sample, count) if sample.is_file() else synthetic(count)
    formats = ("wds", "ffcv") if "format" in inspect.signature(ingest).parameters else ("wds",)
    console = Console(soft_wrap=True)
    console.print("| source | format | images | classes | ids and bytes | labels | seconds |")
    console.print("| --- | --- | ---: | ---: | --- | --- | ---: |")
    seen: dict[bool, set[tuple[str, str]]] = {False: set(), True: set()}
    with tempfile.TemporaryDirectory() as folder:
        for name, layout in LAYOUTS.items():
            root = Path(folder) / name
            root.mkdir()
            src = layout.write(root, as_validation(pictures) if layout.validation else pictures)
            for fmt in formats:
                more = {"format": fmt} if len(formats) > 1 else {}
                out, started = Path(folder) / "out", time.monotonic()
                ingest(
                    src,
                    out,
                    labels=layout.labels,
                    overwrite=True,
                    console=Console(quiet=True),
                    **more,  # type: ignore[arg-type]
                )
                index = ImageIndex(out)
                labels = hashlib.sha256(index.labels.tobytes()).hexdigest()
                seen[layout.validation].add((index.identity, labels))
                console.print(
                    f"| {name} | {fmt} | {len(index)} | {index.n_classes} | {index.identity[:12]} "
                    f"| {labels[:12]} | {time.monotonic() - started:.1f} |",
                )
    equal = all(len(hashes) == 1 for hashes in seen.values())
    console.print("ids, bytes and labels are equal" if equal else "ids, bytes or labels DIFFER")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
