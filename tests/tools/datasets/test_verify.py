"""Verify names what is damaged, and where, and never falls over it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify
from tests.support.damage import about, flip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve labelled images in three containers; copied for each test that damages it."""
    folder = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "src" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    ingest(folder / "src", folder / "out", workers=1, shard_size=5)
    return folder / "out"


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


@pytest.mark.parametrize("decode", [0, 3, 200, "all"])
def test_a_sound_data_set_has_no_problems(sound: Path, decode: int) -> None:
    assert verify(sound, decode=decode) == []


def test_a_flipped_image_byte_names_the_record(data: Path) -> None:
    row = ImageIndex(data).rows[7]
    flip(data / "images-00001.tar", int(row["offset"]) + int(row["length"]) // 2)
    key = ImageIndex(data).keys[7]
    problems = verify(data, decode=0)
    assert len(problems) == 2
    assert about(problems, "images-00001.tar", "was changed")
    assert about(problems, "images-00001.tar", f"offset {row['offset']}", "id 7", f"key {key}")


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_found_and_never_crashes(data: Path) -> None:
    pristine = {p: p.read_bytes() for p in data.iterdir()}
    rng = np.random.default_rng(0)
    for path, content in pristine.items():
        if path.name == "rejected.tsv":  # a log: nothing depends on it
            continue
        for position in rng.integers(0, len(content), 12):
            flip(path, int(position))
            found = verify(data, decode=1)
            # Of the manifest, class names and settings have no second copy to compare with.
            assert found or path.name == "manifest.json", f"{path.name} at {position}"
            path.write_bytes(content)


def test_a_truncated_tar_names_the_records_cut_off(data: Path) -> None:
    rows = ImageIndex(data).rows
    cut = int(rows["offset"][8]) + 10
    tar = data / "images-00001.tar"
    tar.write_bytes(tar.read_bytes()[:cut])
    problems = verify(data)
    assert about(problems, "images-00001.tar", f"has {cut} bytes", "the manifest says")
    for image_id in (8, 9):
        assert about(problems, "images-00001.tar", f"id {image_id}, key", f"the file at {cut}")
    assert not about(problems, "id 7,")
    tar.write_bytes(b"")
    assert about(verify(data), "images-00001.tar", "has 0 bytes")


def test_a_missing_container(data: Path) -> None:
    (data / "images-00002.tar").unlink()
    problems = verify(data)
    assert problems == [f"{data / 'images-00002.tar'}: missing, and with it ids 10..11"]


def test_swapped_containers(data: Path) -> None:
    first, second = data / "images-00000.tar", data / "images-00001.tar"
    first.rename(data / "x")
    second.rename(first)
    (data / "x").rename(second)
    problems = verify(data)
    assert about(problems, "images-00000.tar", "holds what belongs into images-00001.tar")
    assert about(problems, "images-00001.tar", "holds what belongs into images-00000.tar")
    assert about(problems, "images-00000.tar", "offset", "id 0, key a/0.jpg", "no readable member")


def test_edited_keys(data: Path) -> None:
    keys = data / "keys.txt"
    keys.write_text(
        keys.read_text(encoding="utf-8").replace("a/0.jpg", "a/O.jpg"), encoding="utf-8"
    )
    assert about(verify(data), "keys.txt", "was changed")
    keys.write_text("a/0.jpg\n", encoding="utf-8")
    assert about(verify(data), "keys.txt", "1 keys for 12 ids")
    keys.write_bytes(b"\xff\n")
    assert about(verify(data), "keys.txt", "was changed")


def test_an_index_that_disagrees_with_the_containers(data: Path) -> None:
    rows = np.load(data / "index.npy")
    rows["label"][3] += 1
    rows["offset"][4] += 512
    np.save(data / "index.npy", rows)
    problems = verify(data)
    assert about(problems, "index.npy", "was changed")
    assert about(problems, "images-00000.tar", "id 3, key", ".cls says")
    assert about(problems, "images-00000.tar", "id 4, key")


def test_ranges_that_do_not_tile(data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    manifest["containers"][1]["start"] = 6
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert about(verify(data), "images-00001.tar", "holds ids 6..9", "ends at 4")


def test_missing_and_additional_files(data: Path) -> None:
    (data / "images-00000.idx").unlink()
    (data / "notes.txt").write_text("x", encoding="utf-8")
    (data / "checksums.npy").unlink()
    problems = verify(data)
    assert len(problems) == 3
    assert about(problems, "images-00000.idx", "missing")
    assert about(problems, "notes.txt", "not part of the data set")
    assert about(problems, "checksums.npy", "missing")
    (data / "keys.txt").unlink()
    assert about(verify(data), "keys.txt: missing")
    (data / "index.npy").unlink()
    assert about(verify(data), "index.npy")


def test_every_split_is_checked(sound: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(sound, tmp_path / split)
    assert verify(tmp_path) == []
    (tmp_path / "train" / "manifest.json").unlink()
    (tmp_path / "val" / "images-00000.tar").unlink()
    problems = verify(tmp_path)
    assert len(problems) == 2
    assert about(problems, "train", "manifest.json") and about(problems, "val", "images-00000.tar")


def test_wrong_arguments(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone does not exist"):
        verify(tmp_path / "gone")
    with pytest.raises(ValueError, match="decode is -1"):
        verify(sound, decode=-1)
    assert about(verify(tmp_path), "no data set")


@pytest.fixture
def with_tombstones(sound: Path, data: Path) -> Path:
    """The same data set after ids 0 and 7 have lost their images."""
    src = Path(shutil.copytree(sound.parent / "src", data.parent / "src"))
    for key in (ImageIndex(data).keys[0], ImageIndex(data).keys[7]):
        (src / key).unlink()
    ingest(src, data.parent / "less", base=data, workers=1, shard_size=5)
    return data.parent / "less"


def test_tombstones_are_sound_and_hold_nothing(with_tombstones: Path) -> None:
    assert verify(with_tombstones, decode="all") == []
    rows = np.load(with_tombstones / "index.npy")
    assert np.flatnonzero(rows["length"] == 0).tolist() == [0, 7]
    rows["label"][7] = 1
    np.save(with_tombstones / "index.npy", rows)
    problems = verify(with_tombstones)
    assert about(problems, "index.npy", "id 7, key", "has no image", "but an offset, a label")
    assert not about(problems, "id 0,")


def test_a_tombstone_whose_image_is_still_stored(data: Path, with_tombstones: Path) -> None:
    """The index says that ids are gone; the containers are those from before."""
    for name in ("images-00000.tar", "images-00000.idx"):
        shutil.copy(data / name, with_tombstones / name)
    problems = verify(with_tombstones)
    assert about(problems, "images-00000.tar", "holds 1 records", "the first is 000000000")


def test_a_live_id_made_a_tombstone(data: Path) -> None:
    rows = np.load(data / "index.npy")
    rows[3] = np.zeros(1, rows.dtype)[0]
    rows["label"][3] = -1
    np.save(data / "index.npy", rows)
    problems = verify(data)
    assert about(problems, "index.npy", "1 ids have no image, the manifest says 0")
    assert about(problems, "images-00000.tar", "holds 1 records", "the first is 000000003")
