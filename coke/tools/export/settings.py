"""Settings of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is written.

    Attributes:
        format: name of a format.
        epoch: epoch of the checkpoint; the newest one if None.
        with_preprocessing: the network takes pixels, uint8, and normalises them itself; for a
            format of graphs.
        head: file of a fine-tuned classifier, which is exported in place of a checkpoint; for a
            format of graphs.
    """

    format: str
    epoch: int | None = None
    with_preprocessing: bool = False
    head: Path | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.epoch is not None:
            raise ValueError(
                f"--epoch {self.epoch} chooses a checkpoint, and --head {self.head} has weights of "
                "its own; leave one out"
            )
