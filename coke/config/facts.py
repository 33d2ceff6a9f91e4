"""What the preset ``auto`` knows of a data set, and of the device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a data set is.

    Attributes:
        images: number of images N.
        side: shorter side of an image in pixels, median.
        gray: no image has a colour.
    """

    images: int
    side: int
    gray: bool = False


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What a run trains on: ``ranks`` GPUs, or ``ranks`` processes that share ``cores``."""

    gpu: bool
    ranks: int = 1
    cores: int = 1
    precision: str = "fp32"

    def __str__(self) -> str:
        if self.gpu:
            return f"{self.ranks} GPUs" if self.ranks > 1 else "a GPU"
        cores = f"{self.cores} cores" if self.cores > 1 else "a core"
        return f"{cores}, no GPU"
