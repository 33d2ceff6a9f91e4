"""Pixels become the JPEG that is stored."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, JpegImagePlugin

_BLOCK = 16  # pixels of a side of a block of all colours, at any usual subsampling
_4_4_4, _4_2_2, _4_2_0 = 0, 1, 2  # subsampling of colours, as Pillow numbers it


def encode(image: Image.Image, size: tuple[int, int], options: Mapping[str, Any]) -> bytes:
    """A JPEG of this width and height.

    Args:
        image: in mode ``L`` or ``RGB``; it is resized where it has another size.
        size: width and height in pixels.
        options: of Pillow's encoder; see :func:`quality_options` and :func:`own_options`.

    Raises:
        ValueError: the encoder refuses the image.
    """
    buffer = io.BytesIO()
    try:
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        image.info.clear()  # no metadata goes along: it would describe another file
        image.save(buffer, "JPEG", **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot become a JPEG: {error}") from None
    return buffer.getvalue()


def quality_options(mode: str, quality: int) -> dict[str, Any]:
    """The encoder's options for a quality of 1..100."""
    subsampling = {"subsampling": _4_4_4 if quality >= 95 else _4_2_0} if mode == "RGB" else {}
    return {"quality": quality, **subsampling}


def own_options(jpeg: Image.Image, *, transposed: bool) -> dict[str, Any] | None:
    """The encoder's options of the JPEG that was decoded, for encoding it again once it is turned.

    Where both sides are whole blocks, a turn keeps the pixels of a block together. Coefficients are
    then rounded to nearly the values they had, at the size that the file had.

    Args:
        jpeg: an image that Pillow decoded from a JPEG.
        transposed: rows have become columns.

    Returns: None where blocks do not stay together, or Pillow cannot write a file like it.
    """
    tables = getattr(jpeg, "quantization", {})
    if jpeg.width % _BLOCK or jpeg.height % _BLOCK:
        return None
    if not tables or sorted(tables) != list(range(len(tables))):
        return None
    if transposed:
        tables = {n: [t[8 * (i % 8) + i // 8] for i in range(64)] for n, t in tables.items()}
    sampling = JpegImagePlugin.get_sampling(jpeg)
    if jpeg.mode == "L":
        return {"qtables": tables}
    # Pillow cannot write 4:4:0, which 4:2:2 becomes when it is transposed.
    if sampling in (_4_4_4, _4_2_0) or (sampling == _4_2_2 and not transposed):
        return {"qtables": tables, "subsampling": sampling}
    return None
