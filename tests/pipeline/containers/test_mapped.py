"""Containers stay open, so a process must be allowed as many files."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest

from coke.pipeline.containers.mapped import LocalContainers, allow_open_files
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Stands for the limits of this process, which a test must not lower."""
    now = {"limits": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: now["limits"])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: now.update(limits=value))
    return now


@pytest.mark.parametrize(
    ("soft", "hard", "more", "after"),
    [
        (1024, 4096, 100, 1124),
        (1024, 4096, 5000, 4096),
        (1024, resource.RLIM_INFINITY, 5000, 6024),
    ],
)
def test_the_soft_limit_is_raised_up_to_the_hard_one(
    limits: dict[str, tuple[int, int]], soft: int, hard: int, more: int, after: int
) -> None:
    limits["limits"] = (soft, hard)
    assert allow_open_files(more) == after
    assert limits["limits"] == (after, hard)


def test_without_a_limit_nothing_is_set(limits: dict[str, tuple[int, int]]) -> None:
    limits["limits"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert allow_open_files(10) > 10**6
    assert limits["limits"] == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_a_hard_limit_below_the_number_of_containers_is_named(
    shards: Path, limits: dict[str, tuple[int, int]]
) -> None:
    limits["limits"] = (32, 43)
    with pytest.raises(ValueError, match=r"has 12 containers, .* may open 43 files: .* to 44 or"):
        LocalContainers(ImageIndex(shards))
    limits["limits"] = (32, 44)
    LocalContainers(ImageIndex(shards))


def test_containers_without_a_chosen_image_need_not_be_there(shards: Path, tmp_path: Path) -> None:
    """12 containers of 10; only the first and the fourth are copied."""
    for path in shards.iterdir():
        if path.suffix != ".tar" or path.stem in ("images-00000", "images-00003"):
            shutil.copy(path, tmp_path)
    index = ImageIndex(tmp_path)
    reader = RecordReader(index.subset([9, 30, 31]))
    whole = RecordReader(ImageIndex(shards))
    for found, expected in zip(reader.read([9, 31]), whole.read([9, 31]), strict=True):
        assert found.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match=r"images-00001\.tar is missing, and with it ids 10\.\.19"):
        RecordReader(index.subset([9, 10]))
