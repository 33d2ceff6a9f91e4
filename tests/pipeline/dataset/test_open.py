"""Which data set is meant by a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.pipeline.dataset.open import find_split


def test_find_split(folder: Path) -> None:
    parent = folder.parent
    assert find_split(folder, ("train",)) == folder
    assert find_split(str(parent), ("train", "set")) == folder
    folder.rename(parent / "val")
    with pytest.raises(ValueError, match=r"is no data set .*nor in train, test\): make one with"):
        find_split(parent, ("train", "test"))
    with pytest.raises(ValueError, match="gone does not exist: make one with `coke ingest"):
        find_split(parent / "gone", ("train",))


def test_the_first_named_split_wins(folder: Path) -> None:
    for name in ("val", "train"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "manifest.json").write_bytes(b"{}")
    assert find_split(folder.parent, ("train", "val")) == folder.parent / "train"
    assert find_split(folder.parent, ("val", "train")) == folder.parent / "val"
