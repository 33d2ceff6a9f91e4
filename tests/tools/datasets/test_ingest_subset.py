"""``coke ingest DATA OUT --ids``: the same bytes under the same ids, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets.ingest_subset import ingest_subset
from coke.tools.datasets.verify import verify
from tests.support import command_line

CHOSEN = [3, 4, 17, 30, 58]


@pytest.mark.parametrize("format", ["wds", "ffcv"])
def test_chosen_images_keep_ids_keys_labels_and_bytes(
    stripes: Path, tmp_path: Path, quiet: Console, format: str
) -> None:
    data, out = stripes / "train", tmp_path / "out"
    report = ingest_subset(data, out, CHOSEN[::-1], shard_size=2, format=format, console=quiet)
    assert (report.images, report.tombstones, report.containers) == (5, 55, 3)
    whole, found = ImageIndex(data), ImageIndex(out)
    assert (len(found), found.n_live, found.keys) == (60, 5, whole.keys)
    assert found.live_ids is not None and found.live_ids.tolist() == CHOSEN
    assert found.labels[CHOSEN].tolist() == whole.labels[CHOSEN].tolist()
    assert found.manifest.classes == whole.manifest.classes
    assert found.manifest.base == whole.identity
    assert [(c.start, c.stop) for c in found.manifest.containers] == [(0, 5), (5, 31), (31, 60)]
    copies, originals = RecordReader(found).read(CHOSEN), RecordReader(whole).read(CHOSEN)
    for a, b in zip(copies, originals, strict=True):
        assert a.tobytes() == b.tobytes()
    assert verify(out, decode="all", console=quiet) == []
    again = ingest_subset(out, tmp_path / "two", [4, 58], console=quiet)  # a subset of a subset
    assert (again.images, again.tombstones) == (2, 58)


def test_what_cannot_be_chosen_is_one_line(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    np.save(tmp_path / "ids.npy", np.array([1, 60]))
    data, out, ids = stripes / "train", tmp_path / "out", tmp_path / "ids.npy"

    def line(*arguments: object) -> str:
        found = command_line.fails(monkeypatch, capsys, "ingest", *arguments, status=2)
        assert not out.exists()
        return found

    assert "ids.npy has id 60, but the ids of" in line(data, out, "--ids", ids)
    np.save(ids, np.array([1]))
    assert "is no data set of `coke ingest`, whose ids" in line(stripes, out, "--ids", ids)
    message = "--quality has no effect with --ids: stored images are copied as they are"
    assert message in line(data, out, "--ids", ids, "--quality", 80)
    assert "the data set itself; choose another" in line(data, data, "--ids", ids, "--overwrite")
    raw = shutil.copytree(data, tmp_path / "raw")
    rows = np.load(raw / "index.npy")
    rows["encoding"][1] = RAW_RGB
    np.save(raw / "index.npy", rows)
    assert "is stored as raw pixels, which are not copied" in line(raw, out, "--ids", ids)
