"""Data sets that are not what was ingested: the loader says where, and comes to an end."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.containers.tar import tar_members
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.views import dali
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify

BACKENDS = [
    pytest.param(
        "dali", marks=pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")
    ),
    "pil",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in three containers, of equal size where nothing else would tell them apart."""
    return make(tmp_path_factory.mktemp("damage"), seed=0)


def make(root: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    (root / "src").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "src" / f"{i:02d}.jpg")
    ingest(root / "src", root / "out", workers=1, shard_size=4, console=Console(quiet=True))
    return root / "out"


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def load(data: Path, backend: str = "pil", index: ImageIndex | None = None) -> None:
    """An epoch."""
    index = index or ImageIndex(data)
    loader = build_loader(index, [ViewRecipe(size=8)], batch_size=5, backend=backend, threads=1)
    assert sum(len(batch.ids) for batch in loader.epoch(0)) == len(index)


def damaged(data: Path, backend: str = "pil") -> str:
    """What the loader says; `coke verify` must find something too."""
    with pytest.raises(ValueError, match="images-0000") as caught:
        load(data, backend)
    assert verify(data, console=Console(quiet=True))
    return str(caught.value)


def second(data: Path) -> tuple[Container, Path]:
    container = ImageIndex(data).manifest.containers[1]
    return container, data / container.name


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_data_set_is_sound(data: Path, backend: str) -> None:
    load(data, backend)


def test_a_container_cut_at_every_record_boundary_and_at_random(data: Path) -> None:
    """The message names the container and the first record that is not whole."""
    index = ImageIndex(data)
    container, path = second(data)
    content = path.read_bytes()
    boundaries = [m.offset for m in tar_members(path)]
    boundaries += [m.offset + m.size for m in tar_members(path)]
    cuts = [0, *boundaries, *np.random.default_rng(0).integers(1, len(content), 50).tolist()]
    ends = (index.rows["offset"] + index.rows["length"])[container.start : container.stop]
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
            load(data, index=index)
        message = str(caught.value)
        assert f"has {cut} bytes, the manifest says {container.size}" in message
        if (ends > cut).any():
            assert index.describe(container.start + int(np.argmax(ends > cut))) in message
        else:
            assert "every record is there" in message
    problems = verify(data, console=Console(quiet=True))
    assert any(path.name in p and f"has {cuts[-1]} bytes" in p for p in problems)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flipped_byte_of_an_image_names_it(data: Path, backend: str) -> None:
    """Many such images decode, to something: only their checksum tells."""
    index = ImageIndex(data)
    row, (_, path) = index.rows[6], second(data)
    pristine = path.read_bytes()
    for at in (0, int(row["length"]) // 2, int(row["length"]) - 1):
        content = bytearray(pristine)
        content[int(row["offset"]) + at] ^= 1
        path.write_bytes(content)
        message = damaged(data, backend)
        assert message.startswith(f"id 6 (06.jpg) in {path.name} at offset {row['offset']} is not")
        assert f"`coke verify {data}`" in message


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stale_index_names_a_record(data: Path, tmp_path: Path, backend: str) -> None:
    """The index of another ingest of as many images."""
    (tmp_path / "other").mkdir()
    other = make(tmp_path / "other", seed=1)
    shutil.copy(other / "index.npy", data)
    assert re.match(
        r"id \d+ \(\d+\.jpg\) in images-0000\d\.tar at offset \d+ ", damaged(data, backend)
    )


@pytest.mark.parametrize(
    ("column", "value"), [("offset", 10**12), ("length", 2**31), ("container", 3)]
)
def test_rows_that_point_nowhere_are_named(data: Path, column: str, value: int) -> None:
    rows = np.load(data / "index.npy")
    rows[column][6] = value
    np.save(data / "index.npy", rows)
    with pytest.raises(
        ValueError, match=r"id 6 \(06\.jpg\) in .* ends at byte \d+, behind the end"
    ):
        load(data)


def test_a_missing_container_names_what_is_gone(data: Path) -> None:
    container, path = second(data)
    offset = ImageIndex(data).rows["offset"][container.start]
    path.unlink()
    message = damaged(data)
    assert f"container {path} is missing, and with it ids 4..7" in message
    assert f"id 4 (04.jpg) in {path.name} at offset {offset}" in message


def test_a_container_that_vanishes_after_the_start(data: Path) -> None:
    index = ImageIndex(data)
    loader = build_loader(index, [ViewRecipe(size=8)], batch_size=1, shuffle=False, backend="pil")
    batches = loader.epoch(0)
    next(batches)
    path = second(data)[1]
    path.unlink()
    with pytest.raises(ValueError, match=f"container .*{path.name} is missing"):
        list(batches)


@pytest.mark.parametrize("backend", BACKENDS)
def test_swapped_containers_name_a_record(data: Path, backend: str) -> None:
    first, path = data / "images-00000.tar", second(data)[1]
    assert first.stat().st_size == path.stat().st_size  # or the sizes would tell
    first.rename(data / "x")
    path.rename(first)
    (data / "x").rename(path)
    message = damaged(data, backend)
    assert re.match(
        r"id [0-7] \(0[0-7]\.jpg\) in images-0000[01]\.tar at offset \d+ is not", message
    )


def test_bytes_are_checked_once_by_each_reader(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    original = zlib.crc32

    def counted(encoded: bytes) -> int:
        checked.append(len(encoded))
        return original(encoded)

    monkeypatch.setattr(zlib, "crc32", counted)
    loader = build_loader(ImageIndex(data), [ViewRecipe(size=8)], batch_size=5, backend="pil")
    for epoch in range(3):
        list(loader.epoch(epoch))
    assert sorted(checked) == sorted(ImageIndex(data).rows["length"].tolist())
