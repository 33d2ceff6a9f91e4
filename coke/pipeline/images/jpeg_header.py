"""What the header of a JPEG says, read segment by segment without decoding."""

from __future__ import annotations

from dataclasses import dataclass

_APP1, _START_OF_SCAN = 0xE1, 0xDA
_EXIF_START = b"Exif\0\0"


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """The frame header, and the EXIF block.

    Attributes:
        marker: 0xC0 and 0xC1 are baseline, 0xC2 is progressive.
        bits: per sample.
        exif: all EXIF segments joined, empty where there are none.
    """

    marker: int
    bits: int
    height: int
    width: int
    components: int
    exif: bytes


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None for a broken one.

    PIL skips garbage between header segments, DALI's parser refuses it. Found by flipping bits:
    with this check both accept the same files.
    """
    position, frame, exif = 2, None, b""
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:  # the header ends here
            return None if frame is None else _header(*frame, exif)
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = (marker, data[position + 4 : position + 10])
            if len(frame[1]) < 6:
                return None
        elif marker == _APP1 and data.startswith(_EXIF_START, position + 4):
            # As Pillow joins them: further segments lose their first bytes.
            exif += data[position + 4 + (len(_EXIF_START) if exif else 0) : stop]
        position = stop
    return None


def _header(marker: int, fields: bytes, exif: bytes) -> JpegHeader:
    return JpegHeader(
        marker=marker,
        bits=fields[0],
        height=int.from_bytes(fields[1:3], "big"),
        width=int.from_bytes(fields[3:5], "big"),
        components=fields[5],
        exif=exif,
    )
