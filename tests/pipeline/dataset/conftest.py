"""A small data set without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coke.pipeline.dataset.index import INDEX_DTYPE
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.dataset.write_index import write_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three ids in one container of 60 bytes."""
    out = tmp_path / "set"
    out.mkdir()
    rows = np.array(
        [(0, 0, 20, 1, 5, 6, 0), (20, 0, 30, 0, 7, 8, 0), (50, 0, 10, -1, 9, 10, 0)],
        dtype=INDEX_DTYPE,
    )
    write_index(
        out,
        rows=rows,
        crc32=np.arange(3, dtype=np.uint32),
        keys=["b/x.jpg", "a/ü.jpg", "loose.jpg"],
        classes=["a", "b"],
        containers=[Container(name="c.tar", size=60, sha256="00", start=0, stop=3)],
        rejected=4,
        settings={"quality": 95},
    )
    return out
