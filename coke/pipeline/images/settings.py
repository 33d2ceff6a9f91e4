"""Settings that decide how an image file becomes the JPEG that is stored."""

from __future__ import annotations

from dataclasses import dataclass

#: Pixels of the largest image that is taken unless a user allows more: where Pillow itself
#: refuses an image as a decompression bomb.
MAX_PIXELS = 178_956_970


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """How images are stored.

    Attributes:
        resize_shorter: shrink so that the shorter side has this many pixels; never enlarges.
        quality: JPEG quality, 1..100, of images that have to be encoded.
        sixteen_bit: how 16 bits become 8; see :data:`coke.pipeline.images.pixels.SIXTEEN_BIT`.
        max_pixels: refuse images of more pixels.
        orientation: whether the EXIF orientation is applied; see
            :data:`coke.pipeline.images.orientation.ORIENTATIONS`.
    """

    resize_shorter: int | None = None
    quality: int = 95
    sixteen_bit: str = "high-byte"
    max_pixels: int = MAX_PIXELS
    orientation: str = "upright"
