"""Pixels of any depth and colour become 8-bit gray or RGB, the form that JPEGs have.

A value of 16 bits becomes its high byte: 65,535 becomes 255, and 4,095 becomes 15. Files from
scanners and cameras often use 10, 12 or 14 of the 16 bits; their images would turn black. For
them there are the other ways of :data:`SIXTEEN_BIT`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coke.pipeline.images.decode import Decoded, low_bytes

HIGH_BYTE, SCALE = "high-byte", "scale"
#: How 16 bits become 8. ``high-byte`` keeps the upper 8 of 16 bits; a number of bits keeps the
#: upper 8 of so many; ``scale`` maps each image's own smallest..largest value to 0..255.
SIXTEEN_BIT = (HIGH_BYTE, SCALE, *map(str, range(9, 16)))

_GRAY_MODES = ("1", "L", "LA", "La")
_COLOR_MODES = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
_LARGEST = 65_535


def eight_bits(decoded: Decoded, sixteen_bit: str) -> Image.Image:
    """The image in mode ``L`` or ``RGB``. Alpha is dropped, not blended.

    Args:
        decoded: the image.
        sixteen_bit: one of :data:`SIXTEEN_BIT`.

    Raises:
        ValueError: its values have no defined 8-bit form; the message is the reason.
    """
    image = decoded.image
    if image.mode == "F":
        return Image.fromarray(_scaled_floats(np.asarray(image), sixteen_bit))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_scaled(np.asarray(image), decoded.bits, sixteen_bit))
    if image.mode not in _GRAY_MODES + _COLOR_MODES:
        raise ValueError(f"pixel mode {image.mode} has no defined 8-bit RGB form")
    if decoded.bits is None and sixteen_bit != HIGH_BYTE:
        return Image.fromarray(_scaled(_deep_colors(decoded), None, sixteen_bit))
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow converts in two steps
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    return image if image.mode == mode else image.convert(mode)


def brightest(image: Image.Image) -> int:
    """The largest value, 0 to 255, of any pixel and channel of an ``L`` or ``RGB`` image."""
    extremes: Any = image.getextrema()
    return int(extremes[1] if image.mode == "L" else max(high for _, high in extremes))


def _scaled(values: NDArray[Any], bits: int | None, sixteen_bit: str) -> NDArray[np.uint8]:
    """Whole numbers (H, W) or (H, W, 3) of so many bits as 8 bits."""
    low, high = int(values.min()), int(values.max())
    if sixteen_bit == SCALE:
        return _stretched(values, low, high)
    if low < 0 or high > _LARGEST:
        raise ValueError(
            f"pixels are whole numbers from {low} to {high}, beyond 0 to {_LARGEST}: "
            "--sixteen-bit scale maps each image's own range to 8 bits"
        )
    if bits is None:
        bits = 16 if sixteen_bit == HIGH_BYTE else int(sixteen_bit)
    if high >> bits:
        raise ValueError(
            f"a pixel has the value {high}, which takes more than the {bits} bits of --sixteen-bit"
        )
    return (values >> (bits - 8)).astype(np.uint8)


def _scaled_floats(values: NDArray[Any], sixteen_bit: str) -> NDArray[np.uint8]:
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no pixel has a finite value")
    low, high = float(values[known].min()), float(values[known].max())
    if sixteen_bit != SCALE:
        raise ValueError(
            f"pixels are floating-point numbers from {low:.6g} to {high:.6g}, which have no "
            "defined 8-bit form: --sixteen-bit scale maps each image's own range to 8 bits"
        )
    return _stretched(np.where(known, values, low), low, high)


def _stretched(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """``low`` becomes 0, ``high`` 255; an image of one value becomes black."""
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    shares = (values.astype(np.float64) - low) / (high - low)
    return (255 * shares).round().astype(np.uint8)


def _deep_colors(decoded: Decoded) -> NDArray[np.uint16]:
    """16-bit colours (H, W, 3)."""
    low_image = low_bytes(decoded)
    if low_image is None:
        raise ValueError(
            f"Pillow reads only the high bytes of this 16-bit {decoded.format}: leave out "
            "--sixteen-bit, or convert the image"
        )
    high, low = (np.asarray(image)[..., :3] for image in (decoded.image, low_image))
    colors: NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return colors
