"""Arrays one below the other are their concatenation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from coke.clustering.stacked_rows import StackedRows


def test_rows_are_those_of_the_concatenation() -> None:
    x = np.arange(36, dtype=np.int16).reshape(12, 3)
    stacked = StackedRows([x[:1], x[1:6], x[6:7], x[7:]])
    assert stacked.shape == x.shape and len(stacked) == 12 and stacked.dtype == np.int16
    for start in range(13):
        for stop in range(start, 14):
            assert np.array_equal(stacked[start:stop], x[start:stop])
    order = np.array([11, 0, 6, 6, 1, 5, 7])
    assert np.array_equal(stacked[order], x[order])
    assert stacked[np.array([], dtype=np.int64)].shape == (0, 3)


def test_parts_that_are_not_alike_are_refused() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="part 1 is float32 of width 2, part 0 float32 of width 3"):
        StackedRows([x, x[:, :2]])
    with pytest.raises(ValueError, match="part 1 is float64"):
        StackedRows([x, x.astype(float)])


def test_a_fit_is_that_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    x = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    for i, part in enumerate(np.array_split(x, 5)):
        np.save(tmp_path / f"{i}.npy", part)
    np.save(tmp_path / "all.npy", x)
    stacked = StackedRows([np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(5)])
    km = OnlineConstrainedKMeans(7, random_state=0, max_iter=3)
    expected = km.fit_predict(np.load(tmp_path / "all.npy", mmap_mode="r"))
    assert np.array_equal(km.fit_predict(stacked), expected)


def test_points_of_the_caller_are_left_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for points in (x.copy(), np.load(tmp_path / "x.npy", mmap_mode="r+"), StackedRows([x.copy()])):
        OnlineConstrainedKMeans(3, random_state=0, max_iter=2).fit(points)
        assert np.array_equal(points[0:50], x)
