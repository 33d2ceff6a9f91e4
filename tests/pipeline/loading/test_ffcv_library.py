"""Betons go both ways between us and ffcv itself, and FFCV's loader runs behind our interface."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import JPEG, RAW_RGB, ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.views.draw import draw
from coke.pipeline.views.pil_reference import reference_view
from coke.tools.datasets.index_beton import index_beton
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify
from coke.tools.training.train import train
from tests.pipeline.loading.ffcv_library import Samples

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ffcv") is None,  # not imported yet: that takes seconds
        reason="ffcv is not installed: `make ffcv`, or pip install 'coke[ffcv]' (see README)",
    ),
]

REPOSITORY = Path(__file__).parents[3]
CROP_ONLY = ViewRecipe(size=32, jitter_p=0, gray_p=0, blur_p=0)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 labelled JPEGs of one size that fill more than one page, and in ``out`` their beton."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
        pixels[:, :, i % 3] = 8 * i
        path = root / "src" / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        subsampling = i % 3  # 4:4:4, 4:2:2 and 4:2:0
        Image.fromarray(pixels).save(path, quality=98, subsampling=subsampling)
    ingest(
        root / "src",
        root / "out",
        format="ffcv",
        shard_size=0,
        workers=1,
        console=Console(quiet=True),
    )
    return root


@pytest.fixture(scope="module")
def library(noise: Path) -> Path:
    """Folder of what FFCV read from our beton and wrote itself."""
    script = [sys.executable, "-m", "tests.pipeline.loading.ffcv_library"]
    subprocess.run(
        [*script, str(noise / "out" / "images-00000.beton"), str(noise)],
        cwd=REPOSITORY,
        check=True,
        timeout=400,
        capture_output=True,
    )
    return noise


def libjpeg_turbo(jpeg: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decodes with the library and the inverse DCT that FFCV uses."""
    turbo = ctypes.CDLL(ctypes.util.find_library("turbojpeg"))
    turbo.tjInitDecompress.restype = ctypes.c_void_p
    turbo.tjDecompress2.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ]
    turbo.tjDestroy.argtypes = [ctypes.c_void_p]
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    handle = turbo.tjInitDecompress()
    rgb, fast_dct = 0, 2048
    arguments = (jpeg, len(jpeg), pixels.ctypes.data, width, 0, height, rgb, fast_dct)
    assert turbo.tjDecompress2(handle, *arguments) == 0
    turbo.tjDestroy(handle)
    return pixels


def test_ffcv_reads_our_beton(library: Path) -> None:
    read = np.load(library / "read.npz")
    index = ImageIndex(library / "out")
    container = index.manifest.containers[0]
    assert container.size > 2 * (1 << 23)  # the images fill more than one page
    assert sorted(read["id"].tolist()) == list(range(30))
    assert read["label"].tolist() == index.labels[read["id"]].tolist()
    records = RecordReader(index).read(read["id"])
    for pixels, record in zip(read["image"], records, strict=True):
        assert (pixels == libjpeg_turbo(record.tobytes(), 400, 400)).all()


@pytest.mark.parametrize("mode", ["jpg", "raw", "smart"])
def test_a_beton_that_ffcv_wrote_is_indexed_and_trains(
    mode: str,
    library: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
) -> None:
    out = index_beton(library / f"{mode}.beton", tmp_path / mode, console=quiet).out
    index = ImageIndex(out)
    samples = [Samples()[i] for i in range(24)]
    assert index.labels.tolist() == [label for _, label in samples]
    sides = [pixels.shape[0] for pixels, _ in samples]
    assert index.rows["height"].tolist() == index.rows["width"].tolist() == sides
    smart = [JPEG if side == 24 else RAW_RGB for side in sides]
    encodings = {"jpg": [JPEG] * 24, "raw": [RAW_RGB] * 24, "smart": smart}
    assert index.rows["encoding"].tolist() == encodings[mode]
    for record, encoding, (pixels, _) in zip(
        RecordReader(index).read(np.arange(24)), encodings[mode], samples, strict=True
    ):
        read = np.asarray(Image.open(io.BytesIO(record.tobytes()))).astype(int)
        assert np.abs(read - pixels).max() <= (6 if encoding == JPEG else 0)
    assert verify(out, decode="all", console=quiet) == []
    last = train(tiny.changed(optimizer={"epochs": 1}), out, tmp_path / "run", console=quiet)
    assert last.epoch == 1 and last.loss is not None and np.isfinite(last.loss)


def test_ffcvs_loader_yields_our_order_and_crops(noise: Path) -> None:
    index = ImageIndex(noise / "out")
    recipes = [CROP_ONLY, replace(CROP_ONLY, size=16, flip_p=1.0)]
    torch_threads = torch.get_num_threads()
    loader = build_loader(index, recipes, batch_size=8, seed=3, backend="ffcv", threads=1)
    ours = build_loader(index, recipes, batch_size=8, seed=3, backend="pil")
    read = RecordReader(index)
    batches = list(loader.epoch(1))
    assert [b.ids.tolist() for b in batches] == [b.ids.tolist() for b in ours.epoch(1)]
    for batch in batches:
        ids = batch.ids.numpy()
        images = [Image.open(io.BytesIO(r.tobytes())).convert("RGB") for r in read.read(ids)]
        sides = np.full(len(ids), 400)
        for v, recipe in enumerate(recipes):
            drawn = draw(recipe, seed=3, epoch=1, view=v, ids=ids, heights=sides, widths=sides)
            view = batch.views[v].permute(0, 2, 3, 1).numpy()
            assert view.shape == (len(ids), recipe.size, recipe.size, 3)
            expected = np.stack(
                [reference_view(image, recipe, drawn, i) for i, image in enumerate(images)]
            )
            # Both average what shrinks into a pixel: OpenCV over its area, PIL with a triangle.
            grey = np.abs(view - expected) * np.array(recipe.std) * 255
            assert grey.mean() < 12 < np.abs(view[::-1] - expected).mean() * 255

    # A rest of the epoch, after one that was left early, is the same to the bit.
    for batch in loader.epoch(1):
        assert torch.equal(batch.views[0], batches[0].views[0])
        break
    for batch, before in zip(loader.epoch(1, start=8), batches[1:], strict=True):
        assert torch.equal(batch.ids, before.ids)
        assert all(torch.equal(a, b) for a, b in zip(batch.views, before.views, strict=True))
    assert torch.get_num_threads() == torch_threads

    # What FFCV would silently show as a black image is named.
    row = index.rows[5]
    path = noise / "out" / "images-00000.beton"
    content = path.read_bytes()
    with path.open("r+b") as file:  # FFCV has it mapped
        file.seek(int(row["offset"]) + 300)
        file.write(bytes(int(row["length"]) - 300))
    try:
        with pytest.raises(ValueError, match=f"cannot decode id 5 .* at offset {row['offset']}"):
            list(loader.epoch(2))
    finally:
        path.write_bytes(content)
