"""EXIF orientation: how a camera was held, and the turn that makes its picture upright.

Viewers and browsers apply it; Pillow, OpenCV and DALI do not unless they are asked. Only the EXIF
tag counts, as in browsers: an orientation that is in XMP alone is ignored.
"""

from __future__ import annotations

import struct

from PIL import Image

UPRIGHT, KEEP = "upright", "keep"
#: What is done with the tag: images are turned upright, or stored as their pixels lie in the file.
ORIENTATIONS = (UPRIGHT, KEEP)

_TAG = 0x0112
_EXIF_START = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_NUMBERS = {3: "H", 4: "I"}  # types of values: 16 and 32 bits
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
    """The orientation 1..8 that an EXIF block says; 1 (upright) where it is absent or damaged.

    The block is a TIFF of tags: the byte order, the offset of the first directory, the number of
    its entries, and 12 bytes per entry (tag, type, count, value). Pillow's own reader reads all
    tags, which takes as long as checking a JPEG by its header.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(_EXIF_START)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for place in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, place)
        if tag == _TAG:
            number = _NUMBERS.get(kind)
            if number is None or count != 1:
                return 1
            return _known(struct.unpack_from(order + number, tiff, place + 8)[0])
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
