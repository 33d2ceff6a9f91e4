"""Settings that decide how an image file becomes the JPEG that is stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """How images are stored.

    Attributes:
        resize_shorter: shrink so that the shorter side has this many pixels; never enlarges.
        quality: JPEG quality, 1..100, of images that have to be encoded.
    """

    resize_shorter: int | None = None
    quality: int = 95
