"""Is this image storable, and as what: the one answer that ingest, verify and the loader share.

A data set stores JPEGs that every decoder accepts, because one undecodable record stops a whole
DALI pipeline. Good JPEGs are kept byte for byte; other images are converted; the rest is refused.
EXIF rotation is never applied: training sees the stored pixel grid.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from coke.pipeline.images.decode import Decoded, decode
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
        brightest: the largest 8-bit value of an image that has to be encoded; 255 for others,
            whose values nobody has to convert.
    """

    height: int
    width: int
    as_is: bool
    brightest: int = 255


def decode_problem(data: bytes) -> str | None:
    """Why stored bytes cannot be decoded, in a few words; None when they can."""
    try:
        decode(data, max_pixels=None)
    except ValueError as error:
        return str(error)
    if data.startswith(_JPEG_START) and _frame(data) is None:
        return "corrupt JPEG: a segment does not start with a marker"
    return None


def check(data: bytes, settings: StorageSettings) -> Verdict:
    """Decodes an image fully and says how :func:`prepare` would store it, without encoding.

    Raises:
        ValueError: it cannot be stored; the message is the reason.
    """
    return _judged(data, settings)[0]


def check_header(data: bytes, settings: StorageSettings) -> Verdict:
    """The answer of :func:`check` for JPEGs known to be sound, without decoding them.

    Looks at the header segments and at the end marker: a JPEG cut short is found, damage in
    between is not. Anything but a plain JPEG that is kept byte for byte is decoded after all.

    Raises:
        ValueError: it cannot be stored; the message is the reason.
    """
    frame = _frame(data) if data.startswith(_JPEG_START) and data.endswith(_JPEG_END) else None
    if frame is not None:
        shorter, pixels = min(frame.height, frame.width), frame.height * frame.width
        fits = settings.resize_shorter is None or shorter <= settings.resize_shorter
        plain = frame.marker in _STORED_FRAMES and frame.bits == 8 and frame.components in (1, 3)
        if plain and fits and 0 < pixels <= settings.max_pixels:
            return Verdict(height=frame.height, width=frame.width, as_is=True)
    return check(data, settings)


def prepare(data: bytes, settings: StorageSettings) -> PreparedImage:
    """Turns the bytes of a whole image file into the JPEG that is stored.

    Baseline and progressive JPEGs in RGB or gray that need no shrinking are kept byte for byte.

    Raises:
        ValueError: the image cannot be stored; the message is the reason.
    """
    verdict, image = _judged(data, settings)
    if not verdict.as_is:
        data = _encode(image, (verdict.width, verdict.height), settings.quality)
    return PreparedImage(data=data, height=verdict.height, width=verdict.width)


def _judged(data: bytes, settings: StorageSettings) -> tuple[Verdict, Image.Image]:
    """How an image will be stored, and the pixels to encode, not resized yet."""
    decoded = decode(data, max_pixels=settings.max_pixels)
    image, shorter = decoded.image, settings.resize_shorter
    width, height = image.size
    if shorter is not None and min(image.size) > shorter:
        width, height = (max(1, round(side * shorter / min(image.size))) for side in image.size)
    as_is = _is_plain_jpeg(decoded) and (width, height) == image.size
    limit = _MAX_STORED_SIDE if as_is else _MAX_ENCODED_SIDE
    if max(width, height) > limit:
        raise ValueError(f"too large: {width}x{height} pixels; a side may have {limit}")
    if as_is:
        return Verdict(height=height, width=width, as_is=True), image
    image = eight_bits(decoded, settings.sixteen_bit)
    verdict = Verdict(height=height, width=width, as_is=False, brightest=brightest(image))
    return verdict, image


def _is_plain_jpeg(decoded: Decoded) -> bool:
    """Whether every decoder reads the file as it is."""
    frame = _frame(decoded.data) if decoded.format == "JPEG" else None
    known = frame is not None and frame.marker in _STORED_FRAMES
    return known and decoded.image.mode in ("RGB", "L")


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What a JPEG's frame header says; marker 0xC0, 0xC1 is baseline, 0xC2 progressive."""

    marker: int
    bits: int
    height: int
    width: int
    components: int


def _frame(data: bytes) -> _Frame | None:
    """The JPEG's frame header; None for a broken header.

    PIL skips garbage between header segments, DALI's parser refuses it. Found by flipping bits:
    with this check both accept the same files.
    """
    position, frame = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:  # start of scan: the header ends here
            return frame
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            fields = data[position + 4 : position + 10]
            if len(fields) < 6:
                return None
            frame = _Frame(
                marker=marker,
                bits=fields[0],
                height=int.from_bytes(fields[1:3], "big"),
                width=int.from_bytes(fields[3:5], "big"),
                components=fields[5],
            )
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _encode(image: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    buffer = io.BytesIO()
    try:
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        # 0 is 4:4:4, 2 is 4:2:0. No metadata goes along: it would describe another file.
        subsampling = {"subsampling": 0 if quality >= 95 else 2} if image.mode == "RGB" else {}
        image.info.clear()
        image.save(buffer, "JPEG", quality=quality, **subsampling)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot become a JPEG: {error}") from None
    return buffer.getvalue()
