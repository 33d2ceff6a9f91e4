"""The plan of one container: everything that decides its bytes.

The unit of work of an ingest is one container, a pure function of its plan. So any process or
machine may write any container.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.manifest import Container
from coke.pipeline.images.jpeg import PreparedImage, Verdict, prepare
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.sources import Source


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the first pass found out about an image that is accepted."""

    verdict: Verdict
    crc32: int  # of the file, so that a change between the passes is noticed


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """Everything that decides the bytes of one container, and where it goes.

    ``ids`` are of the records, ascending; the container answers for ids [start, stop).
    """

    folder: Path
    number: int
    start: int
    stop: int
    ids: tuple[int, ...]
    records: Source
    candidates: tuple[Candidate, ...]
    settings: StorageSettings


@dataclass(frozen=True, kw_only=True)
class WrittenContainer:
    """A container on disk; one row of the index and a CRC-32 for each of its records."""

    container: Container
    rows: NDArray[np.void]
    crc32: NDArray[np.uint32]


def prepared_image(plan: ContainerPlan, i: int) -> PreparedImage:
    """What record ``i`` of a container stores.

    Raises:
        ValueError: the image changed or vanished since it was checked.
    """
    source, candidate = plan.records, plan.candidates[i]
    try:
        data = source.read(i)
    except OSError as error:
        raise ValueError(
            f"{source.describe(i)} was read before, and cannot be now ({error.strerror}): run the "
            "same command again, or with --restart if the image stays away"
        ) from error
    if zlib.crc32(data) != candidate.crc32:
        raise ValueError(
            f"{source.describe(i)} changed while it was being ingested; "
            "run again when nothing else writes to the source"
        )
    verdict = candidate.verdict
    if verdict.as_is:  # the first pass checked these very bytes
        return PreparedImage(data=data, height=verdict.height, width=verdict.width)
    return prepare(data, plan.settings)
