"""Features are in memory where they fit, else in a mapped file without a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from coke.tools.evaluation import feature_room as module
from coke.tools.evaluation.feature_room import available_memory, feature_room

CPU = torch.device("cpu")
WIDTHS = {"a": 3, "b": 5}  # 10 rows: 320 bytes


@pytest.mark.parametrize(("available", "mapped"), [(640, 0), (639, 2)])
def test_half_of_the_available_memory_or_a_file(
    available: int, mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    real = module._mapped

    def noted(folder: Path, rows: int, width: int) -> torch.Tensor:
        made.append(folder)
        return real(folder, rows, width)

    monkeypatch.setattr(module, "available_memory", lambda: float(available))
    monkeypatch.setattr(module, "_mapped", noted)
    rooms = feature_room(10, WIDTHS, CPU, str(tmp_path))
    assert made == [tmp_path] * mapped
    for name, width in WIDTHS.items():
        assert rooms[name].shape == (10, width) and rooms[name].dtype == torch.float32
        rooms[name][torch.tensor([9, 0])] = torch.ones(2, width)
        assert rooms[name][9].tolist() == rooms[name][0].tolist() == [1.0] * width
    assert list(tmp_path.iterdir()) == [], "no file is left, whatever ends the process"


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "available_memory", lambda: 0.0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=r"10 images take 0\.0 GB, .*\(--no-baselines"):
        feature_room(10, WIDTHS, CPU, str(tmp_path))


def test_available_memory_is_known_or_boundless() -> None:
    assert available_memory() > 2**20
