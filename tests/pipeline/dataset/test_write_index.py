"""The manifest counts what the index holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coke.pipeline.dataset.index import INDEX_DTYPE, ImageIndex
from coke.pipeline.dataset.write_index import write_index


def test_tombstones_are_counted_when_an_index_is_written(tmp_path: Path) -> None:
    rows = np.zeros(5, dtype=INDEX_DTYPE)
    rows["length"] = [3, 0, 0, 2, 0]
    manifest = write_index(
        tmp_path,
        rows=rows,
        crc32=np.zeros(5, dtype=np.uint32),
        keys=list("abcde"),
        classes=[],
        containers=[],
        rejected=0,
        settings={},
    )
    assert manifest.tombstones == 3
    assert ImageIndex(tmp_path).dead_ids.tolist() == [1, 2, 4]
