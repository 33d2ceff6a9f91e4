"""Verifying a data set behind a URL finds what verifying its folder finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.parts import find_parts
from coke.tools.datasets.verify import verify
from tests.support.stripes import draw_stripes

QUIET = Console(quiet=True)
URL = "memory://bucket/data"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two splits; train has 12 images in three containers."""
    root = tmp_path_factory.mktemp("remote")
    draw_stripes(root / "src" / "train", 12, seed=0)
    draw_stripes(root / "src" / "val", 4, seed=1)
    ingest(root / "src", root / "data", workers=1, shard_size=5, console=QUIET)
    return root / "data"


@pytest.fixture
def memory(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("COKE_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for path in made.rglob("*.*"):
        system.pipe_file(f"/bucket/data/{path.relative_to(made)}", path.read_bytes())
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def found() -> list[str]:
    problems = verify(URL, decode="all", console=QUIET)
    assert all(problem.startswith(URL) for problem in problems)
    return problems


def test_a_sound_data_set_leaves_nothing_behind(memory: Any, tmp_path: Path) -> None:
    assert found() == []
    assert list((tmp_path / "cache").iterdir()) == []


def test_splits_are_found_where_the_storage_lists_them(memory: Any) -> None:
    assert find_parts(URL) == [f"{URL}/train", f"{URL}/val"]
    assert find_parts(f"{URL}/train") == [f"{URL}/train"]
    memory.rm_file("/bucket/data/val/manifest.json")  # a damaged data set counts as a data set
    assert find_parts(URL) == [f"{URL}/train", f"{URL}/val"]
    assert find_parts("memory://bucket/nothing") == []


def test_a_changed_image_is_named(memory: Any, made: Path) -> None:
    name = "/bucket/data/train/images-00001.tar"
    data = bytearray(memory.cat_file(name))
    row = ImageIndex(made / "train").rows[7]
    data[int(row["offset"]) + int(row["length"]) // 2] ^= 0x10
    memory.pipe_file(name, bytes(data))
    changed, image = found()
    assert changed == f"{URL}/train/images-00001.tar: was changed (its hash is not the manifest's)"
    assert f"offset {row['offset']}, id 7, key " in image


@pytest.mark.parametrize("change", [-1000, 1000])
def test_another_size_is_told_with_both_values(memory: Any, made: Path, change: int) -> None:
    name = "/bucket/data/train/images-00002.tar"
    data = memory.cat_file(name)
    memory.pipe_file(name, data + bytes(change) if change > 0 else data[:change])
    size, *_ = found()
    assert f"has {len(data) + change} bytes, the manifest says {len(data)}" in size


def test_what_is_missing_and_what_is_too_much(memory: Any) -> None:
    for name in ("images-00000.tar", "images-00001.idx", "keys.txt"):
        memory.rm_file(f"/bucket/data/train/{name}")
    memory.pipe_file("/bucket/data/train/notes.txt", b"")
    problems = "\n".join(found())
    assert f"{URL}/train/images-00000.tar: missing, and with it ids 0..4" in problems
    assert f"{URL}/train/images-00001.idx: missing or damaged" in problems
    assert f"{URL}/train/keys.txt: missing" in problems
    assert f"{URL}/train/notes.txt: not part of the data set" in problems


def test_a_damaged_manifest_is_one_line(memory: Any) -> None:
    memory.pipe_file("/bucket/data/val/manifest.json", b"{")
    (problem,) = found()
    assert problem.startswith(f"{URL}/val: cannot be checked further") and "is damaged" in problem
    memory.rm_file("/bucket/data/val/manifest.json")
    (problem,) = found()
    assert "manifest.json is missing" in problem
