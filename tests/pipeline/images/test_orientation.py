"""The eight values of the EXIF orientation, and blocks that say nothing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from coke.pipeline.images.jpeg import PreparedImage, check, check_header, prepare
from coke.pipeline.images.orientation import (
    KEEP,
    orientation_in,
    orientation_of,
    turned,
    upright_size,
)
from coke.pipeline.images.settings import StorageSettings
from tests.support.exif import LONG, SHORT, SILENT, TAG, block_of, exif, with_block

VALUES = range(1, 9)
#: What 2 rows "abc", "def" of a file look like upright. EXIF says on which side of the picture the
#: first row lies, and on which the first column: 6 is right and top.
UPRIGHT = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("value", VALUES)
def test_each_value_by_hand(value: int) -> None:
    letters = np.array([list(b"abc"), list(b"def")], dtype=np.uint8)
    image = turned(Image.fromarray(letters), value)
    assert [bytes(row).decode() for row in np.asarray(image)] == UPRIGHT[value]
    assert upright_size((3, 2), value) == image.size


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_files_of_any_format_are_turned_as_pillow_turns_them(kind: str, value: int) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)
    lossless: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(pixels).save(buffer, kind, exif=exif(value), **lossless)
    image = Image.open(buffer)
    image.load()
    expected = ImageOps.exif_transpose(Image.open(buffer))
    found = turned(image, orientation_of(image))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("block", SILENT.values(), ids=SILENT)
def test_a_damaged_block_says_nothing(block: bytes) -> None:
    assert orientation_in(block) == 1


@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_a_value_counts_in_either_size_of_number(kind: int) -> None:
    assert orientation_in(block_of(kind, 1, b"\x06\0\0\0")) == 6


@pytest.mark.parametrize("value", VALUES)
def test_blocks_of_either_byte_order(value: int) -> None:
    """Laid out by hand: one directory at offset 8, with one entry."""
    little = b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 1, TAG, SHORT, 1, value, 0)
    big = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHH", 8, 1, TAG, SHORT, 1, value, 0)
    assert orientation_in(little) == orientation_in(big) == orientation_in(big[6:]) == value


def test_an_orientation_in_xmp_alone_is_ignored() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    start = b"http://ns.adobe.com/xap/1.0/\0"
    segment = b"\xff\xe1" + (2 + len(start + xmp)).to_bytes(2, "big") + start + xmp
    buffer = io.BytesIO()
    Image.new("RGB", (9, 5)).save(buffer, "JPEG")
    data = buffer.getvalue()[:2] + segment + buffer.getvalue()[2:]
    assert Image.open(io.BytesIO(data)).getexif()[TAG] == 6  # Pillow would turn it
    assert prepared(data).data == data


# How turned images are stored.


def photo(height: int, width: int) -> Image.Image:
    """Smooth, and different in each corner, so that JPEG keeps it nearly."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [120 + 80 * np.sin(4 * x + 2 * y), 40 + 150 * y, 220 - 150 * x]
    return Image.fromarray(np.stack(planes, -1).round().astype(np.uint8))


def jpeg(image: Image.Image, value: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif(value), **options)
    return buffer.getvalue()


def prepared(data: bytes, **options: Any) -> PreparedImage:
    """What would be stored, after checking that all three entrances agree on it."""
    settings = StorageSettings(**options)
    result = prepare(data, settings)
    for verdict in (check(data, settings), check_header(data, settings)):
        assert (verdict.height, verdict.width) == (result.height, result.width)
        assert verdict.as_is == (result.data == data)
    assert Image.open(io.BytesIO(result.data)).size == (result.width, result.height)
    return result


def difference(stored: bytes, expected: Image.Image) -> float:
    """Mean absolute difference in grey levels; the orientation of what is stored is not applied."""
    got = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"), dtype=np.float64)
    return float(np.abs(got - np.asarray(expected.convert("RGB"))).mean())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_stored_upright(mode: str, value: int) -> None:
    data = jpeg(photo(48, 64).convert(mode), value, quality=95)
    stored = prepared(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (stored.width, stored.height) == upright.size == ((64, 48) if value < 5 else (48, 64))
    assert difference(stored.data, upright) < 1
    if value > 1:  # nobody turns it a second time
        assert TAG not in Image.open(io.BytesIO(stored.data)).getexif()
    assert (stored.data == data) == (value == 1 and mode != "CMYK")


@pytest.mark.parametrize("value", VALUES)
def test_kept_orientations_change_no_byte(value: int) -> None:
    data = jpeg(photo(48, 64), value)
    stored = prepared(data, orientation=KEEP)
    assert stored.data == data and (stored.height, stored.width) == (48, 64)


@pytest.mark.parametrize("value", VALUES)
def test_an_image_is_turned_and_shrunk(value: int) -> None:
    data = jpeg(photo(48, 64), value)
    stored = prepared(data, resize_shorter=24)
    assert (stored.width, stored.height) == ((32, 24) if value < 5 else (24, 32))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(stored.data, upright.resize((stored.width, stored.height))) < 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_when_they_become_jpegs(kind: str) -> None:
    buffer = io.BytesIO()
    photo(48, 64).save(buffer, kind, exif=exif(6), lossless=True)
    stored = prepared(buffer.getvalue())
    assert (stored.width, stored.height) == (48, 64)
    assert difference(stored.data, photo(48, 64).transpose(Image.Transpose.ROTATE_270)) < 1


def test_the_first_picture_of_an_mpo_is_turned() -> None:
    buffer = io.BytesIO()
    image = photo(48, 64)
    image.save(buffer, "MPO", exif=exif(6), save_all=True, append_images=[image])
    assert Image.open(buffer).format == "MPO"
    stored = prepared(buffer.getvalue())
    assert (stored.width, stored.height) == (48, 64)


def test_a_block_behind_the_pixels_of_a_png_counts() -> None:
    buffer = io.BytesIO()
    photo(48, 64).save(buffer, "PNG")
    block = exif(6).tobytes()[6:]
    crc = struct.pack(">I", zlib.crc32(b"eXIf" + block))
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + crc
    end = buffer.getvalue().rindex(b"IEND") - 4
    stored = prepared(buffer.getvalue()[:end] + chunk + buffer.getvalue()[end:])
    assert (stored.width, stored.height) == (48, 64)


def test_a_verdict_says_which_images_are_turned() -> None:
    dark = Image.new("RGB", (64, 48), (9, 9, 9))
    for value, orientation, turned_ in (
        (6, "upright", True),
        (1, "upright", False),
        (6, KEEP, False),
    ):
        verdict = check(jpeg(dark, value), StorageSettings(orientation=orientation))
        assert verdict.turned == turned_
        assert verdict.brightest == 255  # its values need no conversion


def test_sixteen_bit_images_are_turned() -> None:
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", exif=exif(8))
    stored = prepared(buffer.getvalue())
    expected = Image.fromarray((values >> 8).astype(np.uint8)).transpose(Image.Transpose.ROTATE_90)
    assert difference(stored.data, expected) < 1


@pytest.mark.parametrize("value", range(2, 9))
@pytest.mark.parametrize(("subsampling", "most"), [(0, 0.1), (1, 1.0), (2, 2.0)])
def test_a_turned_jpeg_keeps_its_quality(value: int, subsampling: int, most: float) -> None:
    """Where sides are whole blocks, as a camera's are, coefficients get the values they had.

    Colours of half the resolution lose a little more, of saturated noise as here.
    """
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    image = noise.resize((64, 48), Image.Resampling.BICUBIC)
    data = jpeg(image, value, quality=60, subsampling=subsampling)
    stored = prepared(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(stored.data, upright) < most
    # 4:2:2 cannot be transposed: it is encoded at the quality of all other images.
    if subsampling != 1 or value < 5:
        assert 0.9 < len(stored.data) / len(data) < 1.1


def test_blocks_that_a_turn_would_cut_get_the_quality_of_other_images() -> None:
    data = jpeg(photo(44, 64), 3, quality=30)
    coarse, fine = (prepared(data, quality=quality) for quality in (50, 95))
    assert len(fine.data) > 1.3 * len(coarse.data)
    whole = jpeg(photo(48, 64), 3, quality=30)
    assert prepared(whole, quality=50).data == prepared(whole, quality=95).data


def test_tables_that_pillow_cannot_write_again_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = jpeg(photo(48, 64), 3, quality=50)
    parsed = Image.open(io.BytesIO(data))
    tables = {0: parsed.quantization[0], 2: parsed.quantization[1]}  # type: ignore[attr-defined]
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.quantization", tables, raising=False)
    stored = prepare(data, StorageSettings(quality=70))
    assert (stored.height, stored.width) == (48, 64)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("block", SILENT.values(), ids=SILENT)
def test_a_jpeg_with_a_damaged_block_is_kept(block: bytes) -> None:
    buffer = io.BytesIO()
    photo(48, 64).save(buffer, "JPEG")
    data = with_block(buffer.getvalue(), block)
    stored = prepared(data)
    assert stored.data == data and (stored.height, stored.width) == (48, 64)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is damaged
def test_random_bytes_in_place_of_a_block_break_nothing() -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    photo(16, 24).save(buffer, "JPEG")
    whole = exif(6).tobytes()
    for _ in range(300):
        block = bytearray(whole)
        for place in rng.integers(6, len(block), 3):
            block[place] = rng.integers(0, 256)
        stored = prepared(with_block(buffer.getvalue(), bytes(block)))
        assert {stored.height, stored.width} == {16, 24}
