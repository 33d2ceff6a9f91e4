"""Every format by content, metadata of any size, and the limit of pixels."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, features

from coke.pipeline.images.decode import decode
from coke.pipeline.images.formats import EXTENSIONS, format_of

MEGABYTES_3 = os.urandom(3_000_000)


def picture() -> NDArray[np.uint8]:
    """48 x 64 smooth RGB pixels."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([y * 4, x * 3, 90 + y + x], axis=-1).astype(np.uint8)


RGB = Image.fromarray(picture())


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(data, max_pixels=None).image.convert("RGB"))


def needs(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not features.check(feature), reason=f"Pillow lacks {feature}")


@pytest.mark.parametrize(
    ("kind", "options", "worst"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("DIB", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("JPEG", {"quality": 95}, 12),
        ("MPO", {"quality": 95}, 12),
        pytest.param("WEBP", {"lossless": True}, 0, marks=needs("webp")),
        pytest.param("AVIF", {"quality": 95}, 12, marks=needs("avif")),
        pytest.param("JPEG2000", {}, 0, marks=needs("jpg_2000")),
        pytest.param("JPEG2000", {"no_jp2": True}, 0, marks=needs("jpg_2000")),
    ],
)
def test_the_content_says_what_a_file_is(kind: str, options: dict[str, Any], worst: int) -> None:
    found = pixels(encoded(RGB, kind, **options)).astype(int)
    assert np.abs(found - picture()).max() <= worst


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1\n2 2\n0 1\n1 0\n", [[255, 0], [0, 255]]),
        (b"P2\n# a comment\n2 2\n255\n0 10\n20 255\n", [[0, 10], [20, 255]]),
        (b"P4\n2 2\n\x40\x80", [[255, 0], [0, 255]]),
        (b"P5\n2 2\n255\n\x00\x0a\x14\xff", [[0, 10], [20, 255]]),
        (b"P6\n1 1\n255\n\x05\x05\x05", [[5]]),
    ],
)
def test_portable_anymaps(data: bytes, expected: list[list[int]]) -> None:
    assert pixels(data)[..., 0].tolist() == expected


@pytest.mark.parametrize(
    "kind",
    [
        "GIF",
        "PNG",
        "TIFF",
        pytest.param("WEBP", marks=needs("webp")),
        pytest.param("AVIF", marks=needs("avif")),
    ],
)
def test_an_animation_is_its_first_frame(kind: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), color) for color in ((200, 0, 0), (0, 0, 200)))
    data = encoded(red, kind, save_all=True, append_images=[blue])
    assert np.abs(pixels(data).astype(int) - (200, 0, 0)).max() <= 8


# --- Metadata ---


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with further segments, by their marker, right behind its start."""
    data = encoded(RGB, "JPEG")
    between = [
        b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(payload)) + payload
        for marker, payload in segments
    ]
    return data[:2] + b"".join(between) + data[2:]


def png_with(*chunks: tuple[bytes, bytes], at_end: bool = False) -> bytes:
    """A PNG with further chunks, by type, before or behind its pixels."""
    data = encoded(RGB, "PNG")
    between = b"".join(
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
        for kind, payload in chunks
    )
    at = data.index(b"IEND") - 4 if at_end else 33  # behind the header chunk
    return data[:at] + between + data[at:]


PACKED = zlib.compress(b"a" * 3_000_000)
TAGS = TiffImagePlugin.ImageFileDirectory_v2()
TAGS[700], TAGS[34675] = MEGABYTES_3, MEGABYTES_3  # XMP, and a colour profile


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB, "JPEG", icc_profile=MEGABYTES_3),
        jpeg_with(*[(0xE4, MEGABYTES_3[:65533])] * 300),
        jpeg_with(*[(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + MEGABYTES_3[:65000])] * 50),
        jpeg_with(*[(0xFE, b"x" * 65533)] * 50),
        encoded(RGB, "JPEG") + MEGABYTES_3,
        png_with((b"zTXt", b"k\0\0" + PACKED)),
        png_with((b"zTXt", b"k\0\0" + PACKED), at_end=True),
        png_with((b"iTXt", b"k\0\1\0\0\0" + PACKED)),
        png_with((b"tEXt", b"k\0" + b"a" * 70_000_000)),
        png_with(*[(b"zTXt", b"k%d\0\0" % i + zlib.compress(b"a" * 10**6)) for i in range(80)]),
        png_with((b"iCCP", b"k\0\0" + PACKED)),
        png_with((b"eXIf", MEGABYTES_3)),
        pytest.param(
            encoded(RGB, "WEBP", lossless=True, icc_profile=MEGABYTES_3, xmp=MEGABYTES_3)
            if features.check("webp")
            else b"",
            marks=needs("webp"),
        ),
        encoded(RGB, "TIFF", tiffinfo=TAGS),
        encoded(RGB, "GIF", comment=MEGABYTES_3[:1_000_000]),
    ],
    ids=[
        "JPEG, 3 MB of colour profile", "JPEG, 20 MB in application segments", "JPEG, 3 MB of XMP",
        "JPEG, 3 MB of comments", "JPEG, 3 MB behind its end", "PNG, packed text",
        "PNG, packed text behind pixels", "PNG, international text", "PNG, 70 MB of text",
        "PNG, 80 MB of packed text", "PNG, colour profile", "PNG, EXIF", "WebP, profile and XMP",
        "TIFF, profile and XMP", "GIF, comment",
    ],
)  # fmt: skip
def test_an_image_is_not_refused_for_its_metadata(data: bytes) -> None:
    assert pixels(data).shape == (48, 64, 3)
    assert np.abs(pixels(data).astype(int) - picture()).mean() < 12


def test_a_damaged_png_is_refused_with_and_without_text() -> None:
    for data in (encoded(RGB, "PNG"), png_with((b"tEXt", b"k\0text"))):
        for cut in (20, 40, len(data) - 30):
            with pytest.raises(ValueError, match="PNG"):
                decode(data[:cut], max_pixels=None)


# --- What is refused ---


@pytest.mark.slow
def test_the_limit_of_pixels_is_the_callers() -> None:
    data = encoded(Image.new("1", (20_000, 10_000)), "PNG")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 1000  # Pillow's own plays no part
    try:
        assert decode(data, max_pixels=200_000_000).image.size == (20_000, 10_000)
        assert Image.MAX_IMAGE_PIXELS == 1000
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with pytest.raises(
        ValueError, match="20000x10000 is 200,000,000 pixels, more than 199,999,999"
    ):
        decode(data, max_pixels=199_999_999)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
            "HEIF, which Pillow does not read: conv",
        ),
        (b"\xff\x0a" + bytes(40), "JPEG XL, which Pillow does not read"),
        (b"II*\0\x08\0\0\0" + bytes(40), "TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
        (b"<html>404</html>", "not an image"),
        (b"P5\n2 2\n255\n\x00", "truncated|corrupt"),
    ],
)
def test_what_cannot_be_read_says_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(data, max_pixels=None)


def test_first_bytes_name_the_format() -> None:
    expected = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "TIFF": "TIFF"}
    expected |= {"WEBP": "WebP"} if features.check("webp") else {}
    expected |= {"AVIF": "AVIF"} if features.check("avif") else {}
    expected |= {"JPEG2000": "JPEG 2000"} if features.check("jpg_2000") else {}
    for kind, name in expected.items():
        assert format_of(encoded(RGB, kind)) == name
    assert format_of(b"") is None and format_of(b"text") is None
    assert len(set(EXTENSIONS)) == len(EXTENSIONS)
    assert all(end == end.lower() and end.startswith(".") for end in EXTENSIONS)


def test_a_machine_that_opens_no_more_files_does_not_make_an_image_corrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        decode(b"\xff\xd8 any", max_pixels=None)
