"""What a data set is, as far as :mod:`coke.config.auto` asks: from its index and a few images."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from coke.config.facts import DataFacts
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader

_SIZES = 4096  # rows of the index that are looked at
_DECODED = 16  # images that are decoded to see whether they have colours
#: Levels by which the channels of a gray JPEG may differ, rounding being what it is.
_GRAY_TOLERANCE = 4


def data_facts(index: ImageIndex) -> DataFacts:
    """Number, size and colour of the images.

    Raises:
        ValueError: there are none, or one cannot be read.
    """
    if index.n_live == 0:
        raise ValueError(f"{index.folder} has no images")
    ids = np.arange(len(index)) if index.live_ids is None else index.live_ids
    rows = index.rows[ids[:: max(1, len(ids) // _SIZES)]]
    side = float(np.median(np.minimum(rows["height"], rows["width"])))
    return DataFacts(images=index.n_live, side=round(side), gray=_is_gray(index, ids))


def _is_gray(index: ImageIndex, ids: np.ndarray) -> bool:
    if index.remote is not None:  # of one container, which training reads too
        stop = index.manifest.containers[int(index.rows[ids[0]]["container"])].stop
        ids = ids[ids < stop]
    some = ids[:: max(1, len(ids) // _DECODED)][:_DECODED]
    return all(_without_colours(encoded.tobytes()) for encoded in RecordReader(index).read(some))


def _without_colours(encoded: bytes) -> bool:
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode == "L":
            return True
        image.draft("RGB", (64, 64))  # a JPEG is decoded at an eighth of its size
        channels = np.asarray(image.convert("RGB"), dtype=np.int16)
    return int(np.ptp(channels, axis=2).max()) <= _GRAY_TOLERANCE
