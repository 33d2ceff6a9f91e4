"""Settings of an export."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is written.

    Attributes:
        format: name of a format.
        epoch: epoch of the checkpoint; the newest one if None.
        with_preprocessing: the network takes pixels, uint8, and normalises them itself; for a
            format that has such an option.
    """

    format: str
    epoch: int | None = None
    with_preprocessing: bool = False
