"""Sizes in bytes as people write them: ``16GiB``."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}


def parse_bytes(text: str) -> int:
    """The number of bytes of ``16GiB``, ``800 MB`` or ``123456``.

    Raises:
        ValueError: ``text`` is no size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no size in bytes; write 16GiB, 800MB or a number of bytes")
    return round(float(match[1]) * _UNITS[match[2]])


def show_bytes(size: float) -> str:
    """A size as a person reads it: ``3.21 GiB``, ``87.5 MiB``, ``12 B``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 999.5 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
