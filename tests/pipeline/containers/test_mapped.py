"""Containers stay open, so a process must be allowed as many files."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from coke.pipeline.containers.mapped import LocalContainers, allow_open_files
from coke.pipeline.dataset.index import ImageIndex


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
