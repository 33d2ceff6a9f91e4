"""What ingest stores, byte for byte or converted, and what it refuses."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coke.pipeline.images.jpeg import check, check_header, decode_problem, prepare
from coke.pipeline.images.settings import StorageSettings

PLAIN = StorageSettings()


def photo(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    """Smooth values, so that JPEG keeps them nearly."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(y * (c + 1) + x * 2) % 200 + 20 for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8).squeeze()


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored(data: bytes, resize: int | None = None, quality: int = 95) -> Image.Image:
    """The image that would be stored, after checking that all three entrances agree on it."""
    settings = StorageSettings(resize_shorter=resize, quality=quality)
    prepared = prepare(data, settings)
    verdict = check(data, settings)
    assert (verdict.height, verdict.width) == (prepared.height, prepared.width)
    assert verdict.as_is == (prepared.data == data)
    assert decode_problem(prepared.data) is None
    image = Image.open(io.BytesIO(prepared.data))
    assert image.format == "JPEG" and image.size == (prepared.width, prepared.height)
    return image


RGB = Image.fromarray(photo())
GRAY = Image.fromarray(photo(channels=1))


@pytest.mark.parametrize("image", [RGB, GRAY], ids=["rgb", "gray"])
@pytest.mark.parametrize("progressive", [False, True])
def test_good_jpegs_pass_byte_for_byte(image: Image.Image, progressive: bool) -> None:
    upright = Image.Exif()
    upright[0x0112] = 1
    data = encoded(image, progressive=progressive, exif=upright, quality=60)
    prepared = prepare(data, StorageSettings(resize_shorter=40))
    assert prepared.data == data
    assert (prepared.height, prepared.width) == (40, 60)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_become_jpeg(kind: str) -> None:
    data = encoded(RGB, kind, **({"lossless": True} if kind == "WEBP" else {}))
    image = stored(data)
    assert image.mode == "RGB"
    error = np.abs(np.asarray(image).astype(int) - np.asarray(RGB).astype(int)).mean()
    assert error < (12 if kind == "GIF" else 3)  # GIF has 256 colours


def test_alpha_is_dropped_not_blended() -> None:
    rgba = np.dstack([photo(), np.full((40, 60), 10, np.uint8)])
    image = stored(encoded(Image.fromarray(rgba), "PNG"))
    assert np.abs(np.asarray(image).astype(int) - photo().astype(int)).mean() < 3


def test_palette_becomes_rgb_and_gray_stays_gray() -> None:
    assert stored(encoded(RGB.quantize(64), "PNG")).mode == "RGB"
    assert stored(encoded(GRAY, "PNG")).mode == "L"
    assert stored(encoded(GRAY.convert("LA"), "PNG")).mode == "L"
    assert stored(encoded(GRAY.convert("1"), "PNG")).mode == "L"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = photo(channels=1).astype(np.uint16) * 257
    image = stored(encoded(Image.fromarray(wide), "PNG"))
    assert image.mode == "L"
    assert np.abs(np.asarray(image).astype(int) - photo(channels=1).astype(int)).mean() < 3


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = stored(encoded(RGB.convert("CMYK"), quality=95))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - photo().astype(int)).mean() < 6


def test_chroma_is_kept_whole_at_high_quality_only() -> None:
    png = encoded(RGB, "PNG")
    sampling = [stored(png, quality=q).layer[0][1:3] for q in (95, 94)]  # type: ignore[attr-defined]
    assert sampling == [(1, 1), (2, 2)]


def test_resize_shrinks_the_shorter_side_and_never_enlarges() -> None:
    assert stored(encoded(RGB), resize=20).size == (30, 20)
    assert stored(encoded(RGB), resize=41).size == (60, 40)
    assert stored(encoded(Image.new("RGB", (7, 1000)), "PNG"), resize=3).size == (3, 429)


JPEG = encoded(RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"just some text\n", "not an image"),
        (bytes(range(256)) * 8, "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated JPEG header"),
        (JPEG[:-1], "truncated JPEG"),
        (JPEG[:30], "truncated JPEG header"),
        (encoded(RGB, "PNG")[:-60], "PNG"),
        (encoded(Image.new("LAB", (4, 4)), "TIFF"), "mode LAB"),
        (encoded(Image.new("1", (65501, 1)), "PNG"), "too large: 65501x1"),
        (
            encoded(Image.new("1", (20000, 20000)), "PNG"),
            "20000x20000 is 400,000,000 pixels, more than 178,956,970: raise --max",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (JPEG.replace(b"\xff\xc0\x00\x11\x08\x00\x28", b"\xff\xc0\x00\x11\x08\x00\x00"), "JPEG"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(data, PLAIN)
    with pytest.raises(ValueError, match=reason):
        prepare(data, PLAIN)


def test_decode_problem_is_none_for_good_bytes_and_a_reason_for_bad() -> None:
    assert decode_problem(JPEG) is None
    assert decode_problem(b"") == "empty file"
    assert "truncated" in str(decode_problem(JPEG[:-40]))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_headers_say_what_decoding_says(mode: str, progressive: bool) -> None:
    data = encoded(Image.fromarray(photo()).convert(mode), progressive=progressive)
    verdict = check_header(data, PLAIN)
    assert verdict == check(data, PLAIN) and verdict.as_is
    assert (verdict.height, verdict.width) == (40, 60)
    small = check_header(data, StorageSettings(resize_shorter=20))
    assert small == check(data, StorageSettings(resize_shorter=20)) and not small.as_is


def test_headers_that_do_not_suffice_are_decoded() -> None:
    image = Image.fromarray(photo())
    for data in (encoded(image, "PNG"), encoded(image.convert("CMYK")), encoded(image) + b"\0"):
        assert check_header(data, PLAIN) == check(data, PLAIN)
    good = encoded(image)
    for bad, reason in ((good[:-2], "truncated"), (good[:20], "JPEG"), (b"", "empty")):
        with pytest.raises(ValueError, match=reason):
            check_header(bad, PLAIN)
    tables = good.index(b"\xff\xc4") + 5
    damaged = good[:tables] + b"\xff" * 16 + good[tables + 16 :]  # what only decoding finds
    assert check_header(damaged, PLAIN).as_is
    with pytest.raises(ValueError, match="corrupt"):
        check(damaged, PLAIN)


def test_header_that_only_pil_tolerates_is_written_anew() -> None:
    """A damaged marker between segments: PIL skips it, DALI's parser stops."""
    at = JPEG.index(b"\xff\xc4")  # a Huffman table ...
    second = JPEG.index(b"\xff\xc4", at + 2)
    damaged = bytearray(JPEG)
    damaged[second] = 0xFE
    with Image.open(io.BytesIO(bytes(damaged))) as image:
        image.load()  # PIL is content
    assert "marker" in str(decode_problem(bytes(damaged)))
    prepared = prepare(bytes(damaged), PLAIN)
    assert prepared.data != bytes(damaged) and decode_problem(prepared.data) is None
