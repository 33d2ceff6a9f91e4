"""`coke inspect`: numbers by hand, and a contact sheet whose cells are the loader's views."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from coke.config.view_recipe import IMAGENET_TWO_VIEW, ViewRecipe
from coke.pipeline.dataset.index import JPEG, RAW_RGB, ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.views import dali
from coke.tools.datasets.contact_sheet import contact_sheet, denormalised
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.inspect import (
    RESOLUTION_BINS,
    MinMedianMax,
    inspect,
    save_sheet,
    summarise,
)

needs_dali = pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")
VIEWS = (ViewRecipe(size=48), ViewRecipe(size=96, solarize_p=1.0))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train: 3 cats of 40 x 60 pixels and 1 dog of 200 x 100; val: 1 dog."""
    root = tmp_path_factory.mktemp("inspect")
    for place, height, width in (
        ("train/cat/a", 40, 60), ("train/cat/b", 40, 60), ("train/cat/c", 40, 60),
        ("train/dog/d", 200, 100), ("val/cat/f", 40, 60), ("val/dog/e", 20, 30),
    ):  # fmt: skip
        path = root / "src" / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (200, 100, 50)).save(path)
    ingest(root / "src", root / "out", workers=1, console=Console(quiet=True))
    return root / "out"


def shown(folder: Path) -> str:
    console = Console(record=True, width=100, file=io.StringIO())
    inspect(folder, console=console)
    return console.export_text()


def test_numbers_by_hand(splits: Path) -> None:
    train, val = inspect(splits, console=Console(quiet=True))
    assert (train.folder.name, val.folder.name) == ("train", "val")
    assert (train.images, train.tombstones, train.raw, train.unlabelled) == (4, 0, 0, 0)
    assert train.height == MinMedianMax(smallest=40, median=40, largest=200)
    assert train.width == MinMedianMax(smallest=60, median=60, largest=100)
    assert train.class_counts.tolist() == [3, 1]
    sizes = [path.stat().st_size for path in (splits.parent / "src/train").rglob("*.jpg")]
    assert train.image_bytes == sum(sizes)  # JPEGs are stored byte for byte
    assert (train.length.smallest, train.length.largest) == (min(sizes), max(sizes))
    by_bin = dict(zip(RESOLUTION_BINS, train.resolutions.tolist(), strict=True))
    assert {low: n for low, n in by_bin.items() if n} == {32: 3, 96: 1}
    assert val.class_counts.tolist() == [1, 1]


def test_tombstones_and_raw_images_are_counted(splits: Path) -> None:
    index = ImageIndex(splits / "train")
    rows = np.array(index.rows)
    rows["length"][1] = 0
    rows["encoding"][2] = RAW_RGB
    assert (rows["encoding"][[0, 3]] == JPEG).all()
    rows["label"][0] = -1
    index.rows, index.manifest = rows, replace(index.manifest, tombstones=1)
    found = summarise(index)
    assert (found.images, found.tombstones, found.raw, found.unlabelled) == (3, 1, 1, 1)
    assert found.class_counts.tolist() == [1, 1]
    rows["length"] = 0
    del index.live_ids, index.dead_ids  # cached
    index.manifest = replace(index.manifest, tombstones=4)
    nothing = summarise(index)
    assert (nothing.images, nothing.tombstones, nothing.image_bytes) == (0, 4, 0)
    assert nothing.height == MinMedianMax(smallest=0, median=0, largest=0)


def test_tables_name_what_is_there(splits: Path) -> None:
    text = shown(splits)
    for expected in ("images", "tombstones", "4 JPEG", "1 (wds)", "40 to 200", "cat", "dog"):
        assert expected in text
    line = next(line for line in text.splitlines() if "cat" in line)
    assert "3" in line and "█" * 30 in line  # the largest class has the longest bar
    line = next(line for line in text.splitlines() if "dog" in line)
    assert "█" * 10 in line and "█" * 11 not in line  # 1 of 3


def test_many_classes_are_cut_to_the_largest_and_the_smallest(tmp_path: Path) -> None:
    for i in range(14):
        (tmp_path / "src" / f"c{i:02d}").mkdir(parents=True)
        for n in range(1 + (i == 7)):
            Image.new("RGB", (8, 8)).save(tmp_path / "src" / f"c{i:02d}" / f"{n}.jpg")
    ingest(tmp_path / "src", tmp_path / "out", workers=1, console=Console(quiet=True))
    text = shown(tmp_path / "out")
    assert "... 4 more" in text
    assert text.index("c07") < text.index("c00") < text.index("c13")  # two images, then one each
    assert "c05" not in text


@pytest.mark.parametrize("backend", [pytest.param("dali", marks=needs_dali), "pil"])
def test_the_sheet_shows_the_loaders_views(splits: Path, backend: str) -> None:
    index = ImageIndex(splits / "train")
    sheet = contact_sheet(index, VIEWS, images=2, seed=3, epoch=5, epochs=2, backend=backend)
    pixels = np.asarray(sheet)
    # Gaps of 8, a line of 16 for titles; columns: original 96, then 48 and 96 for each epoch.
    lefts = [8 + 96 + 8, 8 + 96 + 8 + 48 + 8, 272, 328]
    assert sheet.size == (328 + 96 + 8, 8 + 16 + 2 * (96 + 16 + 8))
    for row, image_id in enumerate((0, 3)):  # spread over the four
        top = 24 + row * 120
        for cell, left in enumerate(lefts):
            epoch, view = 5 + cell // 2, cell % 2
            loader = build_loader(
                index, VIEWS, batch_size=4, seed=3, shuffle=False, backend=backend, threads=1
            )
            (batch,) = loader.epoch(epoch)
            expected = denormalised(batch.views[view][image_id], VIEWS[view])
            side = VIEWS[view].size
            np.testing.assert_array_equal(pixels[top : top + side, left : left + side], expected)


def test_small_views_are_enlarged(splits: Path) -> None:
    sheet = contact_sheet(
        ImageIndex(splits / "train"), [ViewRecipe(size=32)], images=1, backend="pil"
    )
    assert sheet.width == 8 + 96 + 8 + 96 + 8
    cell = np.asarray(sheet)[24:120, 112:208]
    np.testing.assert_array_equal(cell[::3, ::3], cell[2::3, 2::3])


def test_denormalising_gives_the_grey_levels_back() -> None:
    recipe = replace(IMAGENET_TWO_VIEW[0], size=8)
    pixels: NDArray[np.uint8] = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    view = (pixels / 255 - np.array(recipe.mean)) / np.array(recipe.std)
    tensor = torch.from_numpy(view.astype(np.float32)).permute(2, 0, 1)
    np.testing.assert_array_equal(denormalised(tensor, recipe), pixels)


def test_the_file_is_not_replaced_unless_asked(splits: Path, tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    out = save_sheet(splits, VIEWS[:1], tmp_path / "s.png", images=1, backend="pil", console=quiet)
    first = out.read_bytes()
    with Image.open(out) as image:
        assert image.format == "PNG"
    with pytest.raises(ValueError, match=r"s\.png exists; give --overwrite"):
        save_sheet(splits, VIEWS, out, backend="pil", console=quiet)
    assert out.read_bytes() == first
    save_sheet(splits, VIEWS, out, images=1, backend="pil", overwrite=True, console=quiet)
    assert out.read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def test_bad_arguments_name_thing_and_value(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"s\.txt; name a \.png"):
        save_sheet(splits, VIEWS, tmp_path / "s.txt")
    with pytest.raises(ValueError, match="nowhere of --out .* does not exist"):
        save_sheet(splits, VIEWS, tmp_path / "nowhere" / "s.png")
    with pytest.raises(ValueError, match="images is 0; it must be at least 1"):
        save_sheet(splits, VIEWS, tmp_path / "s.png", images=0, backend="pil")
    with pytest.raises(ValueError, match="gone does not exist"):
        inspect(tmp_path / "gone")
    with pytest.raises(ValueError, match="is no data set"):
        inspect(tmp_path)
    assert list(tmp_path.iterdir()) == []
