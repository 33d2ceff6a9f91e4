"""Bytes by id."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets.ingest import ingest


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven JPEGs, and the data set of them in ``out`` with three containers."""
    root = tmp_path_factory.mktemp("jpegs")
    rng = np.random.default_rng(0)
    (root / "src").mkdir()
    for i in range(7):
        pixels = rng.integers(0, 256, (10 + i, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "src" / f"{i}.jpg")
    ingest(root / "src", root / "out", workers=1, shard_size=3, console=Console(quiet=True))
    return root


def test_bytes_are_the_source_files(jpegs: Path) -> None:
    index = ImageIndex(jpegs / "out")
    assert len(index.manifest.containers) == 3
    reader = RecordReader(index)
    asked = np.array([6, 0, 3, 3, 5, 1, 2, 4])  # any order, across containers, repeated
    for image_id, data in zip(asked.tolist(), reader.read(asked), strict=True):
        assert data.dtype == np.uint8
        assert data.tobytes() == (jpegs / "src" / index.keys[image_id]).read_bytes()
    assert [d.tobytes() for d in reader.read([2])] == [(jpegs / "src" / "2.jpg").read_bytes()]


def test_records_are_views_into_the_map(jpegs: Path) -> None:
    reader = RecordReader(ImageIndex(jpegs / "out"))
    first, again = reader.read([4, 4])
    assert np.shares_memory(first, again)
    assert not first.flags.writeable


def test_a_missing_container_is_named(jpegs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(jpegs / "out", tmp_path / "copy")
    index = ImageIndex(out)
    victim = index.manifest.containers[1].name
    (out / victim).unlink()
    with pytest.raises(ValueError, match=f"container .*{victim} is missing"):
        RecordReader(index)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_told_with_both_sizes(jpegs: Path, tmp_path: Path, change: int) -> None:
    out = shutil.copytree(jpegs / "out", tmp_path / "copy")
    index = ImageIndex(out)
    container = index.manifest.containers[2]
    data = (out / container.name).read_bytes()
    (out / container.name).write_bytes(data[:-1] if change < 0 else data + b"x")
    expected = (
        f"{container.name} has {container.size + change} bytes, "
        f"the manifest says {container.size}; every record is there; `coke verify"
    )
    with pytest.raises(ValueError, match=expected):
        RecordReader(index)
