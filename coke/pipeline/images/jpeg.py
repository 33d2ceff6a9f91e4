"""Is this image storable, and as what: the one answer that ingest, verify and the loader share.

A data set stores JPEGs that every decoder accepts, because one undecodable record stops a whole
DALI pipeline. Good JPEGs are kept byte for byte; other images are converted; the rest is refused.

JPEGs that their EXIF tag turns are turned here and encoded again. So the stored pixels are upright
for every reader of the containers: no decoder looks at the tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from coke.pipeline.images.decode import Decoded, decode
from coke.pipeline.images.encode import encode, own_options, quality_options
from coke.pipeline.images.jpeg_header import read_header
from coke.pipeline.images.orientation import (
    KEEP,
    orientation_in,
    orientation_of,
    turned,
    upright_size,
)
from coke.pipeline.images.pixels import brightest, eight_bits
from coke.pipeline.images.settings import StorageSettings

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_STORED_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive: every decoder has them
_MAX_STORED_SIDE = 65535  # the index keeps sides as 16 bits
_MAX_ENCODED_SIDE = 65500  # libjpeg's limit


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """A JPEG ready to be stored, and its size in pixels."""

    data: bytes
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an image will be stored.

    Attributes:
        height, width: in pixels, as stored.
        as_is: byte for byte as it is.
        brightest: the largest 8-bit value of an image whose values had to be converted; 255 for
            plain JPEGs.
        turned: as its EXIF orientation says.
    """

    height: int
    width: int
    as_is: bool
    brightest: int = 255
    turned: bool = False


def decode_problem(data: bytes) -> str | None:
    """Why stored bytes cannot be decoded, in a few words; None when they can."""
    try:
        decode(data, max_pixels=None)
    except ValueError as error:
        return str(error)
    if data.startswith(_JPEG_START) and read_header(data) is None:
        return "corrupt JPEG: a segment does not start with a marker"
    return None


def check(data: bytes, settings: StorageSettings) -> Verdict:
    """Decodes an image fully and says how :func:`prepare` would store it, without encoding.

    Raises:
        ValueError: it cannot be stored; the message is the reason.
    """
    return _judged(data, settings).verdict


def check_header(data: bytes, settings: StorageSettings) -> Verdict:
    """The answer of :func:`check` for JPEGs known to be sound, without decoding them.

    Looks at the header segments and at the end marker: a JPEG cut short is found, damage in
    between is not. Anything but a plain JPEG that is kept byte for byte is decoded after all.

    Raises:
        ValueError: it cannot be stored; the message is the reason.
    """
    whole = data.startswith(_JPEG_START) and data.endswith(_JPEG_END)
    header = read_header(data) if whole else None
    if header is not None:
        shorter, pixels = min(header.height, header.width), header.height * header.width
        fits = settings.resize_shorter is None or shorter <= settings.resize_shorter
        plain = header.marker in _STORED_FRAMES and header.bits == 8 and header.components in (1, 3)
        upright = settings.orientation == KEEP or orientation_in(header.exif) == 1
        if plain and fits and upright and 0 < pixels <= settings.max_pixels:
            return Verdict(height=header.height, width=header.width, as_is=True)
    return check(data, settings)


def prepare(data: bytes, settings: StorageSettings) -> PreparedImage:
    """Turns the bytes of a whole image file into the JPEG that is stored.

    Baseline and progressive JPEGs in RGB or gray that are upright and need no shrinking are kept
    byte for byte.

    Raises:
        ValueError: the image cannot be stored; the message is the reason.
    """
    judged = _judged(data, settings)
    verdict = judged.verdict
    if not verdict.as_is:
        data = encode(judged.image, (verdict.width, verdict.height), judged.options)
    return PreparedImage(data=data, height=verdict.height, width=verdict.width)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """How an image will be stored; its pixels, upright and not resized yet; how to encode them."""

    verdict: Verdict
    image: Image.Image
    options: dict[str, Any]


def _judged(data: bytes, settings: StorageSettings) -> _Judged:
    decoded = decode(data, max_pixels=settings.max_pixels)
    image, shorter = decoded.image, settings.resize_shorter
    orientation = 1 if settings.orientation == KEEP else orientation_of(image)
    size = width, height = upright_size(image.size, orientation)
    if shorter is not None and min(size) > shorter:
        width, height = (max(1, round(side * shorter / min(size))) for side in size)
    plain, shrunk = _is_plain_jpeg(decoded), (width, height) != size
    as_is = plain and not shrunk and orientation == 1
    limit = _MAX_STORED_SIDE if as_is else _MAX_ENCODED_SIDE
    if max(width, height) > limit:
        raise ValueError(f"too large: {width}x{height} pixels; a side may have {limit}")
    if as_is:
        verdict = Verdict(height=height, width=width, as_is=True)
        return _Judged(verdict=verdict, image=image, options={})
    image = turned(eight_bits(decoded, settings.sixteen_bit), orientation)
    verdict = Verdict(
        height=height,
        width=width,
        as_is=False,
        brightest=255 if plain else brightest(image),
        turned=orientation != 1,
    )
    keeps = plain and not shrunk
    own = own_options(decoded.image, transposed=orientation >= 5) if keeps else None
    options = own or quality_options(image.mode, settings.quality)
    return _Judged(verdict=verdict, image=image, options=options)


def _is_plain_jpeg(decoded: Decoded) -> bool:
    """Whether every decoder reads the file as it is."""
    header = read_header(decoded.data) if decoded.format == "JPEG" else None
    known = header is not None and header.marker in _STORED_FRAMES
    return known and decoded.image.mode in ("RGB", "L")
