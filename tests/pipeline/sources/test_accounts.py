"""Every file of a source is in a split, or set apart with a reason: over random sources."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from coke.pipeline.sources import Splits, find_splits
from tests.support.random_layouts import files_in, random_folders, random_tars


def counted(found: Splits) -> int:
    apart = [*found.beside]
    for source in found.values():
        apart += [*source.others, *source.label_files]
    assert all(other.reason and other.files > 0 for other in apart)
    return sum(map(len, found.values())) + sum(other.files for other in apart)


def splits_of(root: Path, source: str = "auto") -> Splits | None:
    """What is found; None where a source, or a split of it, is refused for holding no images."""
    try:
        return find_splits(root, source=source)
    except ValueError as error:
        if "no images in" not in str(error):
            raise
        return None


@pytest.mark.parametrize("seed", range(300))
def test_folders(seed: int, tmp_path: Path) -> None:
    root = tmp_path / "src"
    random_folders(random.Random(seed), root)
    there = files_in(root)
    found = splits_of(root, "folders")
    if found is None:
        return
    images = [source.images.path(i) for source in found.values() for i in range(len(source))]
    assert len(set(images)) == len(images)
    names = {path.removeprefix(f"{root}/") for path in images}
    left = there - names
    assert names <= there and found.there == len(there) == counted(found)
    apart = [other.key for other in found.beside]
    for source in found.values():
        apart += [other.key for other in (*source.others, *source.label_files)]
    # Keys are relative to the split, so each is the end of one file's name.
    assert len(apart) == len(left)
    assert all(any(name.endswith(key) for name in left) for key in apart)
    assert all(any(name.endswith(key) for key in apart) for name in left)


@pytest.mark.slow
def test_most_random_folders_are_sources(tmp_path: Path) -> None:
    accepted = 0
    for seed in range(40):
        random_folders(random.Random(seed), tmp_path / str(seed))
        accepted += splits_of(tmp_path / str(seed), "folders") is not None
    assert accepted > 20


@pytest.mark.parametrize("seed", range(100))
def test_tars(seed: int, tmp_path: Path) -> None:
    there = random_tars(random.Random(seed), tmp_path / "src")
    found = splits_of(tmp_path / "src")
    assert found is None or found.there == there == counted(found)
