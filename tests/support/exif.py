"""EXIF blocks with an orientation, sound and damaged."""

from __future__ import annotations

import struct

from PIL import Image

TAG = 0x0112  # of the orientation


def exif(value: int) -> Image.Exif:
    block = Image.Exif()
    block[TAG] = value
    return block


def block_of(kind: int, count: int, value: bytes, *, entries: int = 1) -> bytes:
    """An EXIF block with one entry, the orientation, of any type."""
    return (
        b"Exif\0\0II*\0" + struct.pack("<IHHHI4s", 8, entries, TAG, kind, count, value) + bytes(4)
    )


SHORT, LONG, ASCII, RATIONAL = 3, 4, 2, 5
SILENT = {
    "empty": b"",
    "no header": b"garbage",
    "cut off": exif(6).tobytes()[:12],
    "zero": block_of(SHORT, 1, b"\x00\0\0\0"),
    "nine": block_of(SHORT, 1, b"\x09\0\0\0"),
    "huge": block_of(LONG, 1, b"\xff\xff\xff\xff"),
    "text": block_of(ASCII, 4, b"six\0"),
    "two values": block_of(SHORT, 2, b"\x06\0\x06\0"),
    "far offset": block_of(RATIONAL, 1, b"\xff\xff\xff\x7f"),
    "more entries than bytes": block_of(SHORT, 1, b"\x01\0\0\0", entries=60000),
    "first entries at themselves": b"Exif\0\0II*\0\0\0\0\0",
    "byte order of nobody": b"Exif\0\0XX*\0\x08\0\0\0",
}


def with_block(jpeg: bytes, block: bytes) -> bytes:
    """A JPEG with this EXIF block in front."""
    start = block if block.startswith(b"Exif\0\0") else b"Exif\0\0" + block
    segment = b"\xff\xe1" + (2 + len(start)).to_bytes(2, "big") + start
    return jpeg[:2] + segment + jpeg[2:]
