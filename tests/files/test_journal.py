"""The journal gives a piece's result back whole and for the same inputs, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from coke.files import journal

TABLE = np.array([(1, 0.5), (2, -1.0)], dtype=[("id", "<i4"), ("score", "<f4")])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / f"piece{journal.SUFFIX}"
    journal.save(path, "inputs", {"name": "größe", "counts": {10: 1, 2: 0}}, TABLE)
    found = journal.load(path, "inputs")
    assert found is not None
    about, table = found
    assert about == {"name": "größe", "counts": {"10": 1, "2": 0}}
    assert table.dtype == TABLE.dtype and table.tolist() == [(1, 0.5), (2, -1.0)]
    assert journal.load(path, "other inputs") is None
    assert journal.load(tmp_path / "missing.done", "inputs") is None
    journal.save(path, "other inputs", {}, TABLE[:0])
    assert journal.load(path, "inputs") is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_no_damaged_file_is_taken_for_a_result(tmp_path: Path) -> None:
    path = tmp_path / "piece.done"
    journal.save(path, "inputs", {"count": 2, "share": 0.25}, TABLE)
    whole = path.read_bytes()
    for stop in range(0, len(whole), 5):
        path.write_bytes(whole[:stop])
        assert journal.load(path, "inputs") is None
    for place in range(0, len(whole), 2):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert journal.load(path, "inputs") is None


def test_a_draft_never_has_the_suffix_of_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drafts do not have the suffix by which finished pieces are counted."""
    left = []

    def refuse(path: Path, data: bytes) -> int:
        left.append(path.name)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space left"):
        journal.save(tmp_path / "piece.done", "inputs", {}, TABLE)
    assert len(left) == 1 and not left[0].endswith(journal.SUFFIX)
    assert list(tmp_path.iterdir()) == []
