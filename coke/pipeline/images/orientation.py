"""EXIF orientation: how a camera was held, and the turn that makes its picture upright.

Viewers and browsers apply it; Pillow, OpenCV and DALI do not unless they are asked. Only the EXIF
tag counts, as in browsers: an orientation that is in XMP alone is ignored.
"""

from __future__ import annotations

import warnings

from PIL import Image

UPRIGHT, KEEP = "upright", "keep"
#: What is done with the tag: images are turned upright, or stored as their pixels lie in the file.
ORIENTATIONS = (UPRIGHT, KEEP)

_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """The orientation 1..8 of a decoded image file; 1 (upright) where the tag is absent or damaged.

    Pillow turns TIFFs upright while it decodes them; older versions of Pillow do not.
    """
    if image.format == "TIFF":
        return _known(getattr(image, "tag_v2", {}).get(_TAG))
    return orientation_in(image.info.get("exif", b""))


def orientation_in(exif: object) -> int:
    """The orientation 1..8 that an EXIF block says; 1 (upright) where it is absent or damaged."""
    if not isinstance(exif, bytes) or not exif:
        return 1
    found = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged blocks
            found.load(exif)
            return _known(found.get(_TAG))
    except Exception:  # Pillow raises errors of many kinds
        return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of an image of this width and height once it is upright."""
    return (size[1], size[0]) if orientation >= 5 else size


def _known(value: object) -> int:
    return value if isinstance(value, int) and value in _TURNS else 1
