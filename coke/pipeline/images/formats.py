"""Formats of image files: what Pillow may try, names that images have, and what first bytes say.

A file's content decides what it is, whatever its name. Names only decide which files of a folder
or tar are candidates.
"""

from __future__ import annotations

import functools

from PIL import Image

#: Formats that Pillow may try, where it was built with them. Its other plug-ins run programs
#: (EPS), or read files that are no photographs.
_TRIED = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")

#: Ends of the names of image files. HEIF and JPEG XL are among them although Pillow cannot read
#: them: so they are rejected with that reason, instead of being taken for other files.
EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo",
    ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    ".heic", ".heif", ".hif", ".jxl",
)  # fmt: skip

#: Brands of ISO media files (bytes 8 to 12) that are HEIF images; AVIF has others.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_FIRST_BYTES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}


@functools.cache
def tried_formats() -> tuple[str, ...]:
    """Names of the formats that this Pillow has a plug-in for."""
    Image.init()
    return tuple(name for name in _TRIED if name in Image.OPEN)


def format_of(data: bytes) -> str | None:
    """The format that the first bytes of a file say, as people call it; None for unknown ones."""
    for start, name in _FIRST_BYTES.items():
        if data.startswith(start):
            return name
    if data.startswith(_JPEG_XL):
        return "JPEG XL"
    if data[4:8] == b"ftyp":
        return "HEIF" if data[8:12] in _HEIF_BRANDS else "AVIF" if data[8:11] == b"avi" else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return None
