"""Verify on betons: what is damaged, and where."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify
from tests.support.damage import about, flip

ROWS = 24 + 3 * 1041  # where the metadata starts: 32 bytes a sample, id at 16, label at 24


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve labelled images in three betons."""
    folder = tmp_path_factory.mktemp("verify_beton")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "src" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    quiet = Console(quiet=True)
    ingest(folder / "src", folder / "out", format="ffcv", workers=1, shard_size=5, console=quiet)
    return folder / "out"


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


@pytest.mark.parametrize("decode", [0, "all"])
def test_a_sound_data_set_has_no_problems(sound: Path, decode: int) -> None:
    assert verify(sound, decode=decode) == []


def test_a_flipped_image_byte_names_the_record(data: Path) -> None:
    row = ImageIndex(data).rows[7]
    flip(data / "images-00001.beton", int(row["offset"]) + int(row["length"]) // 2)
    problems = verify(data, decode=0)
    assert len(problems) == 2
    assert about(problems, "images-00001.beton", "was changed")
    key = ImageIndex(data).keys[7]
    assert about(problems, "images-00001.beton", f"offset {row['offset']}", "id 7", f"key {key}")


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (16, "id 3, not 2"),
        (24, "label 1, the index 0"),
        (1, "width 21, the index 20"),
        (3, "height 21, the index 20"),
    ],
)
def test_a_table_that_says_otherwise(data: Path, at: int, said: str) -> None:
    path = data / "images-00000.beton"
    content = bytearray(path.read_bytes())
    content[ROWS + 2 * 32 + at] ^= 1  # of sample 2
    path.write_bytes(content)
    problems = verify(data, decode=0)
    assert about(problems, "images-00000.beton", "id 2, key a/2.jpg", f"sample 2 says {said}")
    assert len(problems) == 2


def test_an_image_length_that_is_wrong(data: Path) -> None:
    path = data / "images-00002.beton"
    content = bytearray(path.read_bytes())
    length = int(ImageIndex(data).rows["length"][11])
    assert struct.unpack_from("<Q", content, len(content) - 8) == (length,)
    struct.pack_into("<Q", content, len(content) - 8, length - 1)
    path.write_bytes(content)
    found = about(verify(data, decode=0), "images-00002.beton", "id 11,")
    assert about(found, f"sample 1 says length {length - 1}, the index {length}")


def test_a_cut_file_names_the_records_cut_off(data: Path) -> None:
    path, rows = data / "images-00001.beton", ImageIndex(data).rows
    cut = int(rows["offset"][8]) + 10
    path.write_bytes(path.read_bytes()[:cut])
    problems = verify(data)
    assert about(problems, "images-00001.beton", "cut off, damaged or no beton")
    for image_id in (8, 9):
        assert about(problems, "images-00001.beton", f"id {image_id}, key", f"the file at {cut}")
    assert not about(problems, "id 7,")
    path.write_bytes(b"")
    assert about(verify(data), "images-00001.beton", "has 0 bytes")


def test_swapped_containers(data: Path) -> None:
    first, second = data / "images-00000.beton", data / "images-00001.beton"
    first.rename(data / "x")
    second.rename(first)
    (data / "x").rename(second)
    problems = verify(data)
    assert about(problems, "images-00000.beton", "holds what belongs into images-00001.beton")
    assert about(problems, "images-00000.beton", "id 0, key a/0.jpg", "says id 5, not 0")


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_found_and_never_crashes(data: Path) -> None:
    path = data / "images-00002.beton"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    tables = rng.integers(0, ROWS + 2 * 32, 15)
    others = rng.integers(int(ImageIndex(data).rows["offset"][10]), len(content), 15)
    for position in np.concatenate([tables, others]).tolist():
        flip(path, position)
        assert verify(data, decode=1), f"at {position}"
        path.write_bytes(content)
