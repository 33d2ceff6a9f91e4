"""Containers in WebDataset's format: one tar, and DALI's ``.idx`` beside it."""

from __future__ import annotations

import warnings
import zlib

import numpy as np

from coke.pipeline.containers.plan import ContainerPlan, WrittenContainer, prepared_image
from coke.pipeline.containers.tar import TarWriter, dali_index, record_name
from coke.pipeline.dataset.index import INDEX_DTYPE, JPEG
from coke.pipeline.dataset.manifest import Container


def tar_name(number: int) -> str:
    """File name of a container."""
    return f"images-{number:05d}.tar"


def write_tar_container(plan: ContainerPlan) -> WrittenContainer:
    """Writes one container and its DALI index.

    Raises:
        ValueError: an image changed or vanished since it was checked.
        OSError: the container cannot be written.
    """
    path = plan.folder / tar_name(plan.number)
    count = len(plan.records)
    assert len(plan.ids) == len(plan.candidates) == count
    rows = np.zeros(count, dtype=INDEX_DTYPE)
    crc32 = np.zeros(count, dtype=np.uint32)
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's: the first pass has decided about these images
        tar = TarWriter(file)
        for i in range(count):
            image_id = plan.ids[i]
            stem, label = record_name(image_id), plan.records.labels[i]
            image = prepared_image(plan, i)
            texts = {"cls": str(label)} if label >= 0 else {}
            files = {kind: text.encode() for kind, text in {**texts, "id": str(image_id)}.items()}
            offset = tar.add(stem, {**files, "jpg": image.data})
            as_is = plan.candidates[i].verdict.as_is  # if so, file and image have one CRC-32
            crc32[i] = plan.candidates[i].crc32 if as_is else zlib.crc32(image.data)
            rows[i] = (offset, plan.number, len(image.data), label, image.height, image.width, JPEG)
        tar.close()
    path.with_suffix(".idx").write_text(dali_index(tar.members), encoding="utf-8")
    container = Container(
        name=path.name,
        size=tar.size,
        sha256=tar.sha256.hexdigest(),
        start=plan.start,
        stop=plan.stop,
    )
    return WrittenContainer(container=container, rows=rows, crc32=crc32)
