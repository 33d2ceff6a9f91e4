"""How deep, floating-point, transparent and other pixels become 8-bit gray or RGB, by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coke.pipeline.images.decode import decode
from coke.pipeline.images.jpeg import check
from coke.pipeline.images.pixels import SIXTEEN_BIT, brightest, eight_bits
from coke.pipeline.images.settings import StorageSettings


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def converted(data: bytes, sixteen_bit: str = "high-byte") -> list[Any]:
    image = eight_bits(decode(data, max_pixels=None), sixteen_bit)
    assert image.mode in ("L", "RGB")
    values: list[Any] = np.asarray(image).tolist()
    return values


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of (H, W, C): 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA."""
    height, width, channels = values.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


GRAY_16 = np.array([[[0], [4095]], [[256], [65535]]], dtype=np.uint16)


def test_the_high_byte_of_sixteen_bits() -> None:
    assert converted(deep_png(GRAY_16)) == [[0, 15], [1, 255]]
    big_endian = b"P5\n2 2\n65535\n" + GRAY_16.astype(">u2").tobytes()
    assert converted(big_endian) == [[0, 15], [1, 255]]
    assert converted(encoded(Image.fromarray(GRAY_16[..., 0]), "TIFF")) == [[0, 15], [1, 255]]
    colors = np.array([[[0, 4095, 65535]]], dtype=np.uint16)
    assert converted(deep_png(colors)) == [[[0, 15, 255]]]


@pytest.mark.parametrize(
    ("sixteen_bit", "value", "expected"),
    [("12", 4095, 255), ("12", 16, 1), ("10", 1023, 255), ("14", 16383, 255), ("9", 511, 255)],
)
def test_a_number_of_bits_keeps_the_upper_eight_of_them(
    sixteen_bit: str, value: int, expected: int
) -> None:
    gray = np.full((1, 1, 1), value, dtype=np.uint16)
    assert converted(deep_png(gray), sixteen_bit) == [[expected]]
    for channels in (3, 4):
        colors = np.full((1, 1, channels), value, dtype=np.uint16)
        assert converted(deep_png(colors), sixteen_bit) == [[[expected] * 3]]


def test_a_value_beyond_the_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="value 65535, which takes more than the 12 bits of --six"):
        converted(deep_png(GRAY_16), "12")


def test_scale_maps_each_images_own_range() -> None:
    gray = np.array([[[1000], [2000]], [[1500], [3000]]], dtype=np.uint16)
    # 255 * (1000, 2000, 1500, 3000 - 1000) / 2000 = 0, 127.5, 63.75, 255; halves go to even
    assert converted(deep_png(gray), "scale") == [[0, 128], [64, 255]]
    colors = np.array([[[100, 200, 300, 7]]], dtype=np.uint16)  # alpha plays no part
    assert converted(deep_png(colors), "scale") == [[[0, 128, 255]]]
    constant = np.full((1, 2, 1), 700, dtype=np.uint16)
    assert converted(deep_png(constant), "scale") == [[0, 0]]


@pytest.mark.parametrize("sixteen_bit", SIXTEEN_BIT)
def test_images_of_eight_bits_never_change(sixteen_bit: str) -> None:
    plane = np.array([[3, 9], [12, 20]], dtype=np.uint8)
    assert converted(encoded(Image.fromarray(plane), "PNG"), sixteen_bit) == plane.tolist()
    color = np.dstack([plane, plane + 1, plane + 2])
    assert converted(encoded(Image.fromarray(color), "PNG"), sixteen_bit) == color.tolist()


@pytest.mark.parametrize("sixteen_bit", ["high-byte", "12", "10"])
def test_a_declared_depth_counts(sixteen_bit: str) -> None:
    """A PGM says its largest value, a 12-bit TIFF its bits: no option is needed."""
    values = np.array([0, 2048, 4095, 1024])
    pgm = b"P5\n4 1\n4095\n" + values.astype(">u2").tobytes()
    assert converted(pgm, sixteen_bit)[0] == pytest.approx([0, 128, 255, 64], abs=1)
    ppm = b"P6\n4 1\n4095\n" + np.repeat(values, 3).astype(">u2").tobytes()
    assert converted(ppm, sixteen_bit)[0][2] == [255, 255, 255]
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF4, 0x00])
    assert converted(twelve_bit_tiff(packed), sixteen_bit) == [[0, 128, 255, 64]]


def twelve_bit_tiff(packed: bytes) -> bytes:
    """Four gray pixels in a row, 12 bits each, without padding."""
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1),
            (279, len(packed))]  # fmt: skip
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(122, b"\0") + packed


def test_pillow_does_not_give_the_low_bytes_of_gray_with_alpha() -> None:
    data = deep_png(np.full((2, 2, 2), 4095, dtype=np.uint16))
    assert converted(data)[0][0] in (15, [15] * 3)
    with pytest.raises(ValueError, match="reads only the high bytes of this 16-bit PNG"):
        converted(data, "scale")


def test_whole_numbers_beyond_sixteen_bits_need_scale() -> None:
    values = np.array([[-1000, 0, 3000]], dtype=np.int32)
    data = encoded(Image.fromarray(values), "TIFF")
    with pytest.raises(
        ValueError, match="whole numbers from -1000 to 3000, beyond .*--sixteen-bit"
    ):
        converted(data)
    assert converted(data, "scale") == [[0, 64, 255]]
    inside = encoded(Image.fromarray(np.array([[0, 65535]], dtype=np.int32)), "TIFF")
    assert converted(inside) == [[0, 255]]


def test_floating_point_needs_scale() -> None:
    values = np.array([[0.0, 0.25, 1.0]], dtype=np.float32)
    data = encoded(Image.fromarray(values), "TIFF")
    with pytest.raises(ValueError, match=r"floating-point numbers from 0 to 1, .*--sixteen-bit sc"):
        converted(data)
    assert converted(data, "scale") == [[0, 64, 255]]
    pfm = b"Pf\n3 1\n-1.0\n" + values.astype("<f4").tobytes()
    assert converted(pfm, "scale") == [[0, 64, 255]]
    gaps = np.array([[np.nan, -1.0, np.inf, 1.0]], dtype=np.float32)
    assert converted(encoded(Image.fromarray(gaps), "TIFF"), "scale") == [[0, 0, 0, 255]]
    nothing = encoded(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")
    with pytest.raises(ValueError, match="no pixel has a finite value"):
        converted(nothing, "scale")


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {"compression": "group4"})):
        assert converted(encoded(bits, kind, **options)) == [[0, 255], [255, 0]]


def test_transparency_is_dropped_not_blended() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    expected = [[[10, 20, 30], [200, 100, 50]]]
    assert converted(encoded(palette, "PNG", transparency=b"\0\x80")) == expected
    assert converted(encoded(palette, "PNG", transparency=0)) == expected
    assert converted(encoded(palette, "GIF", transparency=0)) == expected
    rgba = Image.new("RGBA", (1, 1), (9, 8, 7, 0))
    assert converted(encoded(rgba, "PNG")) == [[[9, 8, 7]]]
    assert converted(encoded(Image.new("LA", (1, 1), (9, 0)), "PNG")) == [[9]]


def test_cmyk_and_ycbcr_become_rgb() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        pixel = np.array(converted(encoded(red, kind))[0][0])
        assert np.abs(pixel - (255, 0, 0)).max() <= 3
    green = Image.new("RGB", (8, 8), (0, 200, 0)).convert("YCbCr")
    pixel = np.array(converted(encoded(green, "TIFF", compression="raw"))[0][0])
    assert np.abs(pixel - (0, 200, 0)).max() <= 3


def test_the_verdict_says_how_bright_an_encoded_image_is() -> None:
    dark = deep_png(np.full((4, 4, 1), 4095, dtype=np.uint16))
    assert check(dark, StorageSettings()).brightest == 15
    assert check(dark, StorageSettings(sixteen_bit="12")).brightest == 255
    jpeg = encoded(Image.new("L", (8, 8)), "JPEG")
    assert check(jpeg, StorageSettings()).brightest == 255  # kept as it is: nobody looks
    assert brightest(Image.new("RGB", (2, 2), (1, 5, 3))) == 5
