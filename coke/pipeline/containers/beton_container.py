"""Containers in FFCV's format: the same records as in a tar, as one `.beton`."""

from __future__ import annotations

import warnings
import zlib

import numpy as np

from coke.files.durable import draft_of
from coke.files.hashing import file_sha256
from coke.pipeline.containers.beton import PAGE_SIZE, BetonWriter, RecordTooLargeError
from coke.pipeline.containers.plan import ContainerPlan, WrittenContainer, prepared_image
from coke.pipeline.dataset.index import INDEX_DTYPE, JPEG
from coke.pipeline.dataset.manifest import Container


def beton_name(number: int) -> str:
    """File name of a container."""
    return f"images-{number:05d}.beton"


def write_beton_container(plan: ContainerPlan) -> WrittenContainer:
    """Writes one container as a `.beton` with the fields image, id and label (-1 = none).

    The file gets its name when it is complete.

    Raises:
        ValueError: an image changed or vanished since it was checked.
        OSError: the container cannot be written.
    """
    page_size = PAGE_SIZE
    while True:
        try:
            return _write(plan, page_size)
        except RecordTooLargeError as error:  # rare: it costs less to start over than to look first
            page_size = error.page_size


def _write(plan: ContainerPlan, page_size: int) -> WrittenContainer:
    path = plan.folder / beton_name(plan.number)
    count = len(plan.records)
    assert len(plan.ids) == len(plan.candidates) == count
    rows = np.zeros(count, dtype=INDEX_DTYPE)
    crc32 = np.zeros(count, dtype=np.uint32)
    with (
        draft_of(path, sync=False) as draft,
        warnings.catch_warnings(),
        BetonWriter(draft, count=count, page_size=page_size) as beton,
    ):
        warnings.simplefilter("ignore")  # Pillow's: the first pass has decided about these images
        for i in range(count):
            image, label = prepared_image(plan, i), plan.records.labels[i]
            offset = beton.add(
                image.data,
                height=image.height,
                width=image.width,
                image_id=plan.ids[i],
                label=label,
            )
            length = len(image.data)
            rows[i] = (offset, plan.number, length, label, image.height, image.width, JPEG)
            crc32[i] = zlib.crc32(image.data)
    container = Container(
        name=path.name,
        size=path.stat().st_size,
        sha256=file_sha256(path),
        start=plan.start,
        stop=plan.stop,
    )
    return WrittenContainer(container=container, rows=rows, crc32=crc32)
