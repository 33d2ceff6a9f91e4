"""The bytes of an image file become pixels, or the reason why they cannot."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from coke.files.lookalike import lookalike
from coke.pipeline.images.formats import format_of, tried_formats
from coke.pipeline.images.pixel_limit import no_pixel_limit

_PNG_START = b"\x89PNG\r\n\x1a\n"
#: Chunks of a PNG that no pixel depends on, and that Pillow unpacks into memory: it refuses a
#: whole image when they are large.
_PNG_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

_MACHINE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # Pillow imports its plug-ins late

#: Pillow's raw modes that keep the high byte of 16-bit colours, and those that keep the low one.
_LOW_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
    "RGBX;16B": "RGBX;16L",
    "RGBX;16L": "RGBX;16B",
    "RGBX;16N": "RGBX;16B",
}
_BITS_PER_SAMPLE = 258  # tag of TIFF


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image file.

    Attributes:
        image: the first frame, as Pillow gives it.
        format: Pillow's name of the format; an MPO counts as the JPEG that it begins with.
        bits: bits that the largest value of the file's format takes: 8, or more where the file
            declares a depth; None where values have 16 bits or more and the file does not say
            how many of them are used. Of 16-bit colours, ``image`` has only the high bytes.
        data: the file.
    """

    image: Image.Image
    format: str
    bits: int | None
    data: bytes


def decode(data: bytes, *, max_pixels: int | None) -> Decoded:
    """Decodes a whole image file, whatever its format.

    Args:
        data: the file.
        max_pixels: refuse images of more pixels, before their pixels are decoded; None for none.

    Raises:
        ValueError: it cannot be decoded; the message is the reason.
    """
    if not data:
        raise ValueError("empty file")
    data = _without_png_metadata(data)
    image = _opened(data)
    pixels = image.width * image.height
    if pixels == 0:
        raise ValueError(f"no pixels: {image.width}x{image.height}")
    if max_pixels is not None and pixels > max_pixels:
        raise ValueError(
            f"{image.width}x{image.height} is {pixels:,} pixels, more than {max_pixels:,}: raise "
            "--max-pixels if the image is sound"
        )
    bits = _bits(image)
    try:
        image.load()
    except Exception as error:
        raise ValueError(f"{_damage(error)} {_format(image)}: {error}") from None
    return Decoded(image=image, format=_format(image), bits=bits, data=data)


def low_bytes(decoded: Decoded) -> Image.Image | None:
    """The low bytes of an image of 16-bit colours; None where Pillow does not give them.

    Pillow keeps the high byte of each value. It reads the low one when it is told the other byte
    order.
    """
    image = _opened(decoded.data)
    tiles = []
    for tile in image.tile:
        swapped = _LOW_BYTE.get(str(_arguments(tile)[0]))
        if swapped is None:
            return None
        tiles.append(tile._replace(args=(swapped, *_arguments(tile)[1:])))
    image.tile = tiles
    image.load()
    return image


def _opened(data: bytes) -> ImageFile.ImageFile:
    """The header of an image, decoded. The limit of pixels is ours: Pillow's is not in force."""
    with no_pixel_limit():
        try:
            return Image.open(io.BytesIO(data), formats=tried_formats())
        except UnidentifiedImageError:
            raise ValueError(_unidentified(data)) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
                raise  # says nothing about the image
            kind = format_of(data) or "image"
            raise ValueError(f"{_damage(error)} {kind} header: {error}") from None


def _unidentified(data: bytes) -> str:
    kind = format_of(data)
    if kind is None:
        return f"not an image, but {found}" if (found := lookalike(data)) else "not an image"
    if kind in ("HEIF", "JPEG XL"):
        return f"{kind}, which Pillow does not read: convert it to JPEG or PNG"
    if kind == "JPEG":
        return "corrupt JPEG header"
    return f"corrupt {kind} header, or a {kind} of a kind that Pillow does not read"


def _damage(error: Exception) -> str:
    return "truncated" if "truncated" in str(error).lower() else "corrupt"


def _format(image: Image.Image) -> str:
    # MPO is how Pillow names a JPEG with further pictures behind it; decoders see the first one.
    return "JPEG" if image.format == "MPO" else str(image.format)


def _bits(image: ImageFile.ImageFile) -> int | None:
    """See :class:`Decoded`; of an image that is not loaded yet."""
    arguments = [_arguments(tile) for tile in image.tile]
    largest = max((row[-1] for row in arguments if isinstance(row[-1], int)), default=0)
    if image.format == "PPM" and 255 < largest < 65_535:
        return 16 if image.mode == "I" else 8  # Pillow maps 0..largest to all of 16 or 8 bits
    if image.mode.startswith("I;16"):
        declared = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        return declared if 8 < declared < 16 else None  # a 12-bit TIFF is widened, not scaled
    if image.mode == "I" or largest == 65_535 or any(";16" in str(row[0]) for row in arguments):
        return None
    return 8


def _arguments(tile: Any) -> tuple[Any, ...]:
    """Arguments of the decoder of a part of an image; the raw mode is the first one."""
    arguments = tile[3]
    return arguments if isinstance(arguments, tuple) and arguments else (arguments,)


def _without_png_metadata(data: bytes) -> bytes:
    if not data.startswith(_PNG_START):
        return data
    chunks = list(_png_chunks(data))
    if not any(kind in _PNG_METADATA for kind, _, _ in chunks):
        return data
    kept = [data[start:stop] for kind, start, stop in chunks if kind not in _PNG_METADATA]
    return b"".join((_PNG_START, *kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk; the last one reaches to the end of a damaged file."""
    start = len(_PNG_START)
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        stop = start + 12 + length
        yield data[start + 4 : start + 8], start, stop
        start = stop
