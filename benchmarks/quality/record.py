"""The record of a cell: a JSON file with its accuracy, image by image."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.grid import Cell
from coke.files.durable import write_json

#: One of two evaluations: ``knn`` or ``linear``.
PROTOCOLS = ("knn", "linear")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one training reached.

    Attributes:
        method, images, epochs, seed: the cell.
        knn, linear: top-1 in percent on the test images.
        knn_hits, linear_hits: a bit for each test image, ids ascending, packed and in base64.
        test_images: how many there are.
        views: of each image that the weights learned from.
        steps: that moved weights.
        cpu_seconds: of the training process; 0 where it was not trained in one go.
        cpu, date: where and when.
    """

    method: str
    images: int
    epochs: int
    seed: int
    knn: float
    linear: float
    knn_hits: str
    linear_hits: str
    test_images: int
    views: int
    steps: int
    cpu_seconds: float
    cpu: str
    date: str

    @property
    def cell(self) -> Cell:
        return Cell(method=self.method, images=self.images, epochs=self.epochs, seed=self.seed)

    def hits(self, protocol: str) -> NDArray[np.float64]:
        """Per test image 1 if it was right, 0 if not, (M,)."""
        packed = np.frombuffer(base64.b64decode(getattr(self, f"{protocol}_hits")), np.uint8)
        return np.unpackbits(packed)[: self.test_images].astype(np.float64)


def packed(hits_M: NDArray[np.bool_]) -> str:
    """Bits of (M,) bool as text."""
    return base64.b64encode(np.packbits(hits_M).tobytes()).decode("ascii")


def path_of(cell: Cell, folder: Path) -> Path:
    """Where a cell's record is, once it is done."""
    return folder / f"{cell.name}.json"


def keep(record: Record, folder: Path) -> None:
    """Writes a record whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path_of(record.cell, folder), asdict(record), indent=1)


def records_in(folder: Path) -> list[Record]:
    """All records of a folder, by name."""
    return [
        Record(**json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*-seed-*.json"))
    ]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one method is than another, in points, with its standard error.

    Attributes:
        seeds: that both were trained with; with one, the error is that of the test images alone.
    """

    gain: float
    error: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.gain:+.1f} ± {self.error:.1f}"


def difference(a: Iterable[Record], b: Iterable[Record], protocol: str) -> Difference | None:
    """The mean of ``a`` minus that of ``b`` over the seeds and test images that both have.

    Both were tested on the same images, so the error is that of paired differences: the variance
    over images of the differences averaged over seeds, and the variance over seeds of those
    averaged over images. What varies with both is counted in either, so the error is not too small.

    Returns: None if no seed is in both.
    """
    first, second = ({record.seed: record for record in some} for some in (a, b))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    gaps_SM = np.stack([first[s].hits(protocol) - second[s].hits(protocol) for s in seeds])
    variance = gaps_SM.mean(axis=0).var(ddof=1) / gaps_SM.shape[1]
    if len(seeds) > 1:
        variance += gaps_SM.mean(axis=1).var(ddof=1) / len(seeds)
    return Difference(
        gain=100 * float(gaps_SM.mean()), error=100 * math.sqrt(variance), seeds=len(seeds)
    )


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"
