"""The `.beton` layout: bytes worked out by hand, and what damage is called."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from coke.pipeline.containers.beton import (
    IMAGE,
    INT,
    JSON,
    PAGE_SIZE,
    Beton,
    BetonWriter,
    Field,
    RecordTooLargeError,
    metadata_dtype,
)
from coke.pipeline.dataset.index import JPEG, RAW_RGB

PAGE = 1 << 21


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three records, of which the third does not fit into what the second leaves of its page."""
    path = tmp_path / "three.beton"
    with BetonWriter(path, count=3, page_size=PAGE) as beton:
        assert beton.add(b"abc", height=2, width=5, image_id=7, label=1) == PAGE
        assert beton.add(b"d" * (PAGE - 4), height=3, width=6, image_id=8, label=-1) == PAGE + 3
        assert beton.add(b"ef", height=4, width=7, image_id=10, label=0) == 2 * PAGE
    return path


def test_bytes_follow_the_layout(three: Path) -> None:
    data = three.read_bytes()
    assert struct.unpack_from("<HHIQQ", data) == (2, 3, PAGE, 3, 2 * PAGE + 2)
    for i, (type_id, name) in enumerate([(2, b"image"), (1, b"id"), (1, b"label")]):
        start = 24 + 1041 * i
        assert data[start] == type_id
        assert data[start + 1 : start + 17] == name.ljust(16, b"\0")
        assert data[start + 17 : start + 1041] == bytes(1024)
    start = 24 + 3 * 1041
    assert struct.unpack_from("<BHHQ3xqq", data, start) == (0, 5, 2, PAGE, 7, 1)
    assert struct.unpack_from("<BHHQ3xqq", data, start + 32) == (0, 6, 3, PAGE + 3, 8, -1)
    assert data[PAGE : PAGE + 4] == b"abcd" and data[2 * PAGE - 2 : 2 * PAGE] == b"d\0"
    assert data[2 * PAGE : 2 * PAGE + 2] == b"ef"
    assert struct.unpack_from("<9Q", data, 2 * PAGE + 2) == (
        *(0, PAGE, 3),
        *(1, PAGE + 3, PAGE - 4),
        *(2, 2 * PAGE, 2),
    )
    assert len(data) == 2 * PAGE + 2 + 9 * 8


def test_what_is_written_reads_back(three: Path) -> None:
    beton = Beton(three)
    assert [(f.name, f.type_id) for f in beton.fields] == [("image", 2), ("id", 1), ("label", 1)]
    assert len(beton) == 3 and beton.page_size == PAGE
    assert beton.column("id").tolist() == [7, 8, 10]
    assert beton.column("label").tolist() == [1, -1, 0]
    images = beton.images("image")
    assert images.offset.tolist() == [PAGE, PAGE + 3, 2 * PAGE]
    assert images.length.tolist() == [3, PAGE - 4, 2]
    assert images.height.tolist() == [2, 3, 4] and images.width.tolist() == [5, 6, 7]
    assert images.encoding.tolist() == [JPEG] * 3


def test_rows_are_aligned_as_in_c() -> None:
    kinds = [("a", IMAGE), ("b", INT), ("c", JSON), ("d", IMAGE)]
    dtype = metadata_dtype([Field(name=name, type_id=kind) for name, kind in kinds])
    assert [dtype.fields[f"f{i}"][1] for i in range(4)] == [0, 16, 24, 40]  # type: ignore[index]
    assert dtype.itemsize == 56  # 53 used; the int's alignment holds for the row


def test_a_record_larger_than_a_page(tmp_path: Path) -> None:
    def add(size: int) -> None:
        with BetonWriter(tmp_path / "x.beton", count=1, page_size=PAGE) as beton:
            beton.add(bytes(size), height=1, width=1, image_id=0, label=0)

    add(PAGE)
    for size, enough in ((PAGE + 1, 2 * PAGE), (2 * PAGE, 2 * PAGE), (2 * PAGE + 1, 4 * PAGE)):
        with pytest.raises(RecordTooLargeError) as caught:
            add(size)
        assert caught.value.page_size == enough


def test_an_unfinished_file_does_not_read_as_a_beton(tmp_path: Path) -> None:
    def killed() -> None:
        with BetonWriter(tmp_path / "x.beton", count=2, page_size=PAGE) as beton:
            beton.add(b"abc", height=1, width=1, image_id=0, label=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    with pytest.raises(ValueError, match=r"x\.beton is no beton of version 2: it starts with 0"):
        Beton(tmp_path / "x.beton")


def test_without_records(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "none.beton", count=0):
        pass
    beton = Beton(tmp_path / "none.beton")
    assert len(beton) == 0 and len(beton.images("image").offset) == 0
    assert beton.size == PAGE_SIZE


def patched(path: Path, offset: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(new)] = new
    path.write_bytes(data)
    return path


ROWS = 24 + 3 * 1041


def test_raw_pixels_are_told_apart_and_measured(three: Path) -> None:
    patched(three, ROWS, struct.pack("<BHH", 1, 1, 1))  # sample 0: 1 x 1 pixel, 3 bytes
    assert Beton(three).images("image").encoding.tolist() == [RAW_RGB, JPEG, JPEG]
    patched(three, ROWS, struct.pack("<BHH", 1, 1, 2))
    with pytest.raises(ValueError, match="sample 0 is of mode 1 and 1x2 pixels, but has 3 bytes"):
        Beton(three).images("image")


@pytest.mark.parametrize(
    ("offset", "new", "complaint"),
    [
        (0, b"\x03\0", "no beton of version 2: it starts with 3"),
        (2, b"\xff\xff", "list of fields would end at byte"),
        (8, b"\xff" * 4, "table of samples would end at byte"),
        (16, b"\xff" * 6, "allocation table would end at byte"),
        (24, b"\x09", "field 'image' is of type 9"),
        (ROWS + 5, b"\x07", "allocation table knows nothing of sample 0 at offset"),
        (ROWS, b"\x02", "sample 0 is of mode 2"),
        (2 * PAGE + 2 + 6 * 8 + 16, b"\xff\xff\xff", "sample 2 has 16777215 bytes at offset"),
    ],
)
def test_damage_is_named(three: Path, offset: int, new: bytes, complaint: str) -> None:
    patched(three, offset, new)
    with pytest.raises(ValueError, match=complaint) as caught:
        Beton(three).images("image")
    assert str(three) in str(caught.value)


def test_a_field_that_is_not_there(three: Path) -> None:
    with pytest.raises(ValueError, match="no field 'img'; its fields: image, id, label"):
        Beton(three).images("img")
    with pytest.raises(ValueError, match="field 'id' holds no images"):
        Beton(three).images("id")


def test_a_file_cut_at_any_of_its_tables(three: Path) -> None:
    data = three.read_bytes()
    for end in (0, 10, 24, 500, ROWS + 40, PAGE, 2 * PAGE):
        three.write_bytes(data[:end])
        with pytest.raises(ValueError, match="cut off, damaged or no beton"):
            Beton(three)
    three.write_bytes(data[:-24])  # the last row of the allocation table
    with pytest.raises(ValueError, match="knows nothing of sample 2"):
        Beton(three).images("image")


def test_allocations_in_any_order(three: Path) -> None:
    data = bytearray(three.read_bytes())
    table = np.frombuffer(bytes(data[2 * PAGE + 2 :]), dtype="<u8").reshape(3, 3)
    data[2 * PAGE + 2 :] = table[[2, 0, 1]].tobytes()
    three.write_bytes(data)
    assert Beton(three).images("image").length.tolist() == [3, PAGE - 4, 2]
