"""A data set made on top of an older one: whose ids are kept, and what of duplicates is stored."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify

QUIET: dict[str, Any] = {"workers": 1, "shard_size": 3, "console": Console(quiet=True)}


def draw(path: Path, gray: int) -> None:
    """A JPEG of one colour: the number tells images apart, and equal numbers are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 20, 3), gray, np.uint8)).save(path)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Eight images in classes bee and cat; the first letter of a name is in its colour."""
    root = tmp_path / "src"
    for i, name in enumerate("abcdefgh"):
        draw(root / ("bee" if i < 4 else "cat") / f"{name}.jpg", 20 * i)
    return root


def grays(folder: Path) -> dict[int, int]:
    """Colour of each image that is there, by id, as the reader gives it."""
    index = ImageIndex(folder)
    live = np.flatnonzero(index.rows["length"])
    images = [Image.open(io.BytesIO(r.tobytes())) for r in RecordReader(index).read(live)]
    return {int(i): round(np.asarray(image).mean()) for i, image in zip(live, images, strict=True)}


def stored_ids(folder: Path) -> list[int]:
    """Ids in the containers, as the webdataset library reads them."""
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    return [int(sample["id"]) for sample in samples]


def test_old_ids_stay_new_ones_follow_and_gone_ones_are_tombstones(
    src: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    ingest(src, old, **QUIET)
    (src / "bee" / "a.jpg").unlink()
    (src / "cat" / "g.jpg").unlink()
    (src / "cat" / "h.jpg").write_bytes(b"damaged since")
    draw(src / "ant" / "n.jpg", 200)  # a class that sorts before the old ones
    draw(src / "bee" / "aa.jpg", 220)
    report = ingest(src, new, base=old, **QUIET)

    index = ImageIndex(new)
    old_keys = [f"bee/{x}.jpg" for x in "abcd"] + [f"cat/{x}.jpg" for x in "efgh"]
    assert index.keys == [*old_keys, "ant/n.jpg", "bee/aa.jpg"]
    assert grays(new) == {1: 20, 2: 40, 3: 60, 4: 80, 5: 100, 8: 200, 9: 220}
    assert index.manifest.classes == ["bee", "cat", "ant"]
    assert index.labels.tolist() == [-1, 0, 0, 0, 1, 1, -1, -1, 2, 0]
    assert stored_ids(new) == [1, 2, 3, 4, 5, 8, 9]
    # Three images each; a tombstone goes with the next image, so the ranges tile the ids.
    ranges = [(c.start, c.stop) for c in index.manifest.containers]
    assert ranges == [(0, 4), (4, 9), (9, 10)]
    assert index.rows["container"].tolist() == [0] * 4 + [1] * 5 + [2]
    gone = index.rows[[0, 6, 7]]
    for field in ("offset", "length", "height", "width", "encoding"):
        assert gone[field].tolist() == [0, 0, 0]
    assert index.manifest.tombstones == 3 and index.manifest.count == 10
    assert index.manifest.base == ImageIndex(old).identity
    (split,) = report.splits
    assert (split.images, split.kept, split.tombstones, split.rejected) == (7, 5, 3, 1)
    assert verify(new, decode="all", console=Console(quiet=True)) == []

    # What was gone returns; what is behind the last image belongs to the last container.
    draw(src / "bee" / "a.jpg", 10)
    (src / "bee" / "aa.jpg").unlink()
    third = tmp_path / "third"
    ingest(src, third, base=new, **QUIET)
    assert ImageIndex(third).keys == index.keys
    assert grays(third) == {0: 10, 1: 20, 2: 40, 3: 60, 4: 80, 5: 100, 8: 200}
    assert [(c.start, c.stop) for c in ImageIndex(third).manifest.containers][-1] == (6, 10)
    assert verify(third, console=Console(quiet=True)) == []


def test_the_same_images_on_top_of_themselves_change_nothing(src: Path, tmp_path: Path) -> None:
    old, out = tmp_path / "old", tmp_path / "out"
    ingest(src, old, **QUIET)
    shutil.copytree(old, out)
    with pytest.raises(ValueError, match="add --overwrite"):
        ingest(src, out, base=out, **QUIET)
    ingest(src, out, base=out, overwrite=True, **QUIET)
    for path in old.iterdir():
        if path.name != "manifest.json":
            assert (out / path.name).read_bytes() == path.read_bytes()
    assert ImageIndex(out).identity == ImageIndex(old).identity
    assert ImageIndex(out).manifest.base == ImageIndex(old).identity


def test_a_renamed_file_keeps_its_id(src: Path, tmp_path: Path) -> None:
    """Also one that is stored re-encoded: what is compared is the source's bytes."""
    Image.fromarray(np.full((16, 20, 3), 200, np.uint8)).save(src / "cat" / "png.png")
    old = tmp_path / "old"
    ingest(src, old, **QUIET)
    (src / "cat" / "png.png").rename(src / "bee" / "0.png")
    (src / "bee" / "d.jpg").rename(src / "cat" / "z.jpg")
    ingest(src, tmp_path / "new", base=old, match="content", **QUIET)
    index = ImageIndex(tmp_path / "new")
    kept = "bee/a bee/b bee/c cat/z cat/e cat/f cat/g cat/h bee/0"
    assert [key.partition(".")[0] for key in index.keys] == kept.split()
    assert grays(tmp_path / "new") == grays(old)
    assert index.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]  # of the new folders
    ingest(src, tmp_path / "by_key", base=old, **QUIET)
    assert ImageIndex(tmp_path / "by_key").manifest.tombstones == 2


def test_splits_keep_their_ids_each(tmp_path: Path) -> None:
    src, old = tmp_path / "src", tmp_path / "old"
    for i, split in enumerate(("train", "val")):
        draw(src / split / "cat" / "m.jpg", 10 + i)
        draw(src / split / "dog" / "m.jpg", 20 + i)
    ingest(src, old, **QUIET)
    draw(src / "val" / "bee" / "m.jpg", 200)
    draw(src / "test" / "cat" / "m.jpg", 30)
    ingest(src, tmp_path / "new", base=old, **QUIET)
    val, test = ImageIndex(tmp_path / "new" / "val"), ImageIndex(tmp_path / "new" / "test")
    assert val.keys == ["cat/m.jpg", "dog/m.jpg", "bee/m.jpg"]
    assert val.manifest.classes == test.manifest.classes == ["cat", "dog", "bee"]
    assert val.labels.tolist() == [0, 1, 2] and test.keys == ["cat/m.jpg"]
    assert test.manifest.base == ""  # the old data set had no such split
    with pytest.raises(ValueError, match="splits train, val, the source has no splits"):
        ingest(src / "train", tmp_path / "x", base=old, **QUIET)
    assert not (tmp_path / ".x.partial").exists()


def test_duplicates_are_reported(src: Path, tmp_path: Path) -> None:
    shutil.copy(src / "bee" / "c.jpg", src / "cat" / "copy of c.jpg")
    report = ingest(src, tmp_path / "out", dedupe="report", **QUIET)
    assert report.splits[0].duplicates == 1 and report.splits[0].images == 9
    lines = (tmp_path / "out" / "duplicates.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert [row[:3] for row in rows] == [["0", "2", "bee/c.jpg"], ["0", "4", "cat/copy of c.jpg"]]
    assert verify(tmp_path / "out", console=Console(quiet=True)) == []


def test_dropped_duplicates_are_named_and_make_tombstones_of_old_ids(
    src: Path, tmp_path: Path
) -> None:
    shutil.copy(src / "bee" / "c.jpg", src / "bee" / "aa.jpg")
    old, new = tmp_path / "old", tmp_path / "new"
    ingest(src, old, **QUIET)
    report = ingest(src, new, dedupe="drop", **QUIET)
    assert ImageIndex(new).keys == [key for key in ImageIndex(old).keys if key != "bee/c.jpg"]
    assert "bee/c.jpg\tduplicate of bee/aa.jpg" in (new / "rejected.tsv").read_text(
        encoding="utf-8"
    )
    assert report.splits[0].duplicates == report.splits[0].rejected == 1

    shutil.copy(src / "bee" / "c.jpg", src / "bee" / "0.jpg")  # sorts first, but has no old id
    ingest(src, tmp_path / "on_old", base=old, dedupe="drop", **QUIET)
    index = ImageIndex(tmp_path / "on_old")
    assert index.keys == ImageIndex(old).keys and index.manifest.tombstones == 1
    assert index.rows["length"][index.keys.index("bee/c.jpg")] == 0


def test_headers_alone_give_the_same_data_set_when_all_is_sound(src: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 20, 4), 200, np.uint8)).save(src / "cat" / "png.png")
    (src / "cat" / "cut.jpg").write_bytes((src / "cat" / "e.jpg").read_bytes()[:-40])
    for check in ("decode", "header"):
        ingest(src, tmp_path / check, check=check, **QUIET)
    for path in (tmp_path / "decode").iterdir():
        if path.name not in ("manifest.json", "contents.npy"):
            assert (tmp_path / "header" / path.name).read_bytes() == path.read_bytes(), path.name
    # Only of what is stored anew are hashes taken; others can be had from the stored image.
    contents = ImageIndex(tmp_path / "header").contents
    assert contents is not None
    keys = ImageIndex(tmp_path / "header").keys
    assert [key for key, row in zip(keys, contents, strict=True) if row.any()] == ["cat/png.png"]
    (src / "cat" / "png.png").rename(src / "bee" / "0.png")
    (src / "bee" / "d.jpg").rename(src / "cat" / "z.jpg")
    new = tmp_path / "new"
    ingest(src, new, base=tmp_path / "header", match="content", **QUIET)
    renamed = {"cat/png.png": "bee/0.png", "bee/d.jpg": "cat/z.jpg"}
    assert ImageIndex(new).keys == [renamed.get(key, key) for key in keys]
    assert grays(new) == grays(tmp_path / "decode")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("check", "quick", "decode, header"),
        ("match", "size", "key, content"),
        ("dedupe", "yes", "report, drop"),
        ("engine", "spark", "process, ray"),
        ("format", "zip", "wds"),
        ("match", "content", "there is no base"),
        ("base", "nowhere", "is no data set"),
    ],
)
def test_arguments_that_are_no_choice(
    src: Path, tmp_path: Path, name: str, value: str, remedy: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s){name} (is )?'?{value}.*{remedy}"):
        ingest(src, tmp_path / "out", **{name: value})  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["src"]
