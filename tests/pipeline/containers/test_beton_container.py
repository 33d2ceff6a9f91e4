"""Containers as betons: the same records as the tars, and a function of their plan."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.files.hashing import file_sha256
from coke.pipeline.containers import beton_container
from coke.pipeline.containers.beton import Beton
from coke.pipeline.containers.beton_container import write_beton_container
from coke.pipeline.containers.plan import Candidate, ContainerPlan
from coke.pipeline.containers.tar_container import write_tar_container
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.images.jpeg import check
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.sources import find_splits
from coke.tools.datasets.ingest import ingest


@pytest.fixture
def plan(tmp_path: Path) -> ContainerPlan:
    """Four JPEGs and a PNG in classes a and b, with a gap in their ids."""
    rng = np.random.default_rng(0)
    for i in range(5):
        path = tmp_path / "src" / "ab"[i % 2] / f"{i}{'.png' if i == 4 else '.jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    source = find_splits(tmp_path / "src")[""]
    (tmp_path / "out").mkdir()
    data = [source.read(i) for i in range(len(source))]
    return ContainerPlan(
        folder=tmp_path / "out",
        number=3,
        start=40,
        stop=47,
        ids=(40, 41, 43, 44, 46),
        records=source,
        candidates=tuple(
            Candidate(verdict=check(d, StorageSettings()), crc32=zlib.crc32(d)) for d in data
        ),
        settings=StorageSettings(),
    )


def test_records_are_those_of_the_tar(plan: ContainerPlan) -> None:
    ours, tar = write_beton_container(plan), write_tar_container(plan)
    path = plan.folder / "images-00003.beton"
    assert ours.container.name == path.name and ours.container.sha256 == file_sha256(path)
    assert (ours.container.start, ours.container.stop) == (40, 47)
    assert ours.container.size == path.stat().st_size
    assert ours.crc32.tolist() == tar.crc32.tolist()
    for name in ("container", "length", "label", "height", "width", "encoding"):
        assert ours.rows[name].tolist() == tar.rows[name].tolist()
    data = path.read_bytes()
    for row, crc32 in zip(ours.rows, ours.crc32, strict=True):
        start = int(row["offset"])
        assert zlib.crc32(data[start : start + int(row["length"])]) == crc32
    beton = Beton(path)
    assert beton.column("id").tolist() == list(plan.ids)
    assert beton.column("label").tolist() == list(plan.records.labels)
    images = beton.images("image")
    for name in ("offset", "length", "height", "width", "encoding"):
        assert getattr(images, name).tolist() == ours.rows[name].tolist()
    assert [p.name for p in plan.folder.glob("*beton*")] == [path.name]


def test_bytes_are_a_function_of_the_plan(plan: ContainerPlan) -> None:
    first = write_beton_container(plan).container
    assert write_beton_container(plan).container == first
    assert (
        write_beton_container(replace(plan, settings=StorageSettings(quality=50))).container.sha256
        != first.sha256
    )


def test_pages_grow_with_the_largest_image(
    plan: ContainerPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = int(write_tar_container(plan).rows["length"].max())
    monkeypatch.setattr(beton_container, "PAGE_SIZE", 1 << 8)
    rows = write_beton_container(plan).rows
    beton = Beton(plan.folder / "images-00003.beton")
    assert beton.page_size == 1 << (largest - 1).bit_length() > 1 << 8
    first, last = rows["offset"], rows["offset"] + rows["length"] - 1
    assert (first // beton.page_size == last // beton.page_size).all()


def test_an_image_that_changes_leaves_nothing_behind(plan: ContainerPlan) -> None:
    path = Path(plan.records.describe(2))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=f"{path.name} changed while it was being ingested"):
        write_beton_container(plan)
    assert not list(plan.folder.iterdir())


@pytest.mark.parametrize("shard_size", [2, 0])
def test_a_data_set_is_the_same_in_both_formats(
    plan: ContainerPlan, tmp_path: Path, shard_size: int
) -> None:
    for name in ("wds", "ffcv"):
        ingest(
            tmp_path / "src",
            tmp_path / name,
            format=name,
            shard_size=shard_size,
            workers=1,
            console=Console(quiet=True),
        )
    tar, beton = ImageIndex(tmp_path / "wds"), ImageIndex(tmp_path / "ffcv")
    assert (tar.manifest.storage, beton.manifest.storage) == ("wds", "ffcv")
    assert (
        len(tar.manifest.containers) == len(beton.manifest.containers) == (3 if shard_size else 1)
    )
    assert tar.keys == beton.keys and tar.identity == beton.identity
    assert tar.labels.tolist() == beton.labels.tolist()
    every = np.arange(5)
    pairs = zip(RecordReader(tar).read(every), RecordReader(beton).read(every), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_an_unknown_format(plan: ContainerPlan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'zip'; choose one of wds, ffcv"):
        ingest(tmp_path / "src", tmp_path / "new", format="zip")
