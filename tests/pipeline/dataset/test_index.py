"""Opening a data set, and what is said where it is none."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from coke.files.hashing import file_sha256
from coke.pipeline.dataset.index import INDEX_DTYPE, ImageIndex


def test_open(folder: Path) -> None:
    index = ImageIndex(str(folder))
    assert len(index) == 3
    assert isinstance(index.rows, np.memmap)  # pages are shared, not parsed
    assert index.rows["offset"].tolist() == [0, 20, 50]
    assert index.keys == ["b/x.jpg", "a/ü.jpg", "loose.jpg"]
    assert index.labels.tolist() == [1, 0, -1]
    assert index.labels.dtype == np.int64
    assert index.n_classes == 2
    assert index.manifest.rejected == 4
    assert index.manifest.containers[0].stop == 3
    hashes = file_sha256(folder / "keys.txt") + file_sha256(folder / "checksums.npy")
    assert index.identity == hashlib.sha256(hashes.encode()).hexdigest()
    assert index.describe(1) == "id 1 (a/ü.jpg) in c.tar at offset 20"


@pytest.mark.parametrize(
    "rows", [np.zeros(2, INDEX_DTYPE), np.zeros(3, np.int64)], ids=["count", "dtype"]
)
def test_rows_must_be_what_the_manifest_says(folder: Path, rows: np.ndarray) -> None:
    np.save(folder / "index.npy", rows)
    message = f"holds {rows.shape} of {rows.dtype}; the manifest says (3,) of {INDEX_DTYPE}"
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageIndex(folder)


@pytest.mark.parametrize(
    "kept",
    [
        0,
        20,
        -1,
    ],
)
def test_a_truncated_index_is_named(folder: Path, kept: int) -> None:
    data = (folder / "index.npy").read_bytes()
    (folder / "index.npy").write_bytes(data[:kept])
    with pytest.raises(ValueError, match=r"index\.npy cannot be read \(.*\); ingest again"):
        ImageIndex(folder)


def test_a_missing_index_is_named(folder: Path) -> None:
    (folder / "index.npy").unlink()
    with pytest.raises(ValueError, match=r"index\.npy cannot be read"):
        ImageIndex(folder)


def with_tombstone(folder: Path, said: int) -> ImageIndex:
    """Id 1 without an image, and a manifest that says how many such there are."""
    rows = np.load(folder / "index.npy")
    rows["length"][1] = 0
    np.save(folder / "index.npy", rows)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["tombstones"] == 0
    (folder / "manifest.json").write_text(
        json.dumps(manifest | {"tombstones": said}), encoding="utf-8"
    )
    return ImageIndex(folder)


def test_a_row_without_bytes_is_a_tombstone(folder: Path) -> None:
    whole = ImageIndex(folder)
    assert whole.live_ids is None
    assert (whole.n_live, whole.dead_ids.tolist()) == (3, [])
    index = with_tombstone(folder, 1)
    assert index.live_ids is not None
    assert index.live_ids.tolist() == [0, 2]
    assert index.dead_ids.tolist() == [1]
    assert (len(index), index.n_live) == (3, 2)


def test_tombstones_must_be_as_many_as_the_manifest_says(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 1 tombstones, the manifest says 2: ingest again"):
        _ = with_tombstone(folder, 2).dead_ids


def test_which_record_a_cut_hits_first(folder: Path) -> None:
    index = ImageIndex(folder)
    assert index.describe_cut(0, 60) == "every record is there"
    last = "the first record cut off is id 2 (loose.jpg) in c.tar at offset 50"
    assert index.describe_cut(0, 59) == index.describe_cut(0, 50) == last
    assert "is id 1 (a/ü.jpg) in c.tar at offset 20" in index.describe_cut(0, 49)
    assert "is id 0 (b/x.jpg) in c.tar at offset 0" in index.describe_cut(0, 0)


def test_checksums(folder: Path) -> None:
    assert ImageIndex(folder).crc32.tolist() == [0, 1, 2]
    np.save(folder / "checksums.npy", np.zeros(2, dtype=np.uint32))
    message = r"checksums\.npy holds \(2,\) of uint32; the manifest says \(3,\)"
    with pytest.raises(ValueError, match=message):
        _ = ImageIndex(folder).crc32
    (folder / "checksums.npy").unlink()
    with pytest.raises(ValueError, match=r"checksums\.npy cannot be read"):
        _ = ImageIndex(folder).crc32
    (folder / "keys.txt").unlink()
    assert ImageIndex(folder).describe(1) == "id 1 in c.tar at offset 20"


def test_a_view_without_some_images_renumbers_nothing(folder: Path) -> None:
    whole = with_tombstone(folder, 1)
    dead = int(whole.dead_ids[0])
    other = (dead + 1) % 3
    view = whole.without(np.array([dead, other]))
    assert view.dead_ids.tolist() == sorted([dead, other])
    assert view.live_ids is not None and view.live_ids.tolist() == [3 - dead - other]
    assert (len(view), view.n_live) == (3, 1) and view.identity == whole.identity
    assert (whole.n_live, whole.dead_ids.tolist()) == (2, [dead])
