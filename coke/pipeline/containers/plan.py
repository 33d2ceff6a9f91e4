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
    """An accepted image, as the first pass saw it.

    Attributes:
        verdict: how it will be stored.
        crc32: CRC-32 of the file, by which the second pass notices a change.
    """

    verdict: Verdict
    crc32: int


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """Everything that decides the bytes of one container, and where it is written.

    Attributes:
        folder: where the container is written.
        number: of the container in its data set.
        start, stop: the container answers for ids [start, stop), tombstones among them.
        ids: of the images, ascending.
        records: the images, in the order of ``ids``.
        candidates: what the first pass saw, one per image.
        settings: how images are stored.
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
    """A container on disk.

    Attributes:
        rows: (R,) of ``INDEX_DTYPE``, one per image.
        crc32: (R,) of each stored image.
    """

    container: Container
    rows: NDArray[np.void]
    crc32: NDArray[np.uint32]


def prepared_image(plan: ContainerPlan, i: int) -> PreparedImage:
    """The JPEG that the container stores for its image ``i``.

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
    if verdict.as_is:  # the first pass has checked these bytes
        return PreparedImage(data=data, height=verdict.height, width=verdict.width)
    return prepare(data, plan.settings)
