"""Images are upright in every backend, whatever their EXIF orientation and their container."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from rich.console import Console

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.views import dali
from coke.tools.datasets.contact_sheet import contact_sheet, denormalised
from coke.tools.datasets.ingest import ingest
from tests.support.exif import SILENT, with_block

BACKENDS = [
    pytest.param(
        "dali", marks=pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")
    ),
    "pil",
]
VALUES = range(1, 9)
RED, GREEN, BLUE, GRAY = (200, 40, 40), (40, 180, 40), (40, 40, 200), (128, 128, 128)
#: Turns that put an upright image into a file with this orientation: the inverse of the turns that
#: make it upright. Those by 90 degrees change places.
INTO_THE_FILE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
EVALUATION = ViewRecipe(size=32, center_fraction=1.0).evaluation()


def quarters() -> Image.Image:
    """Upright, 64 x 48: red and green above, blue and gray below."""
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = RED, GREEN, BLUE, GRAY
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same picture eight times, as cameras held in eight ways store it."""
    root = tmp_path_factory.mktemp("photos")
    for value, turn in INTO_THE_FILE.items():
        exif = Image.Exif()
        exif[0x0112] = value
        image = quarters() if turn is None else quarters().transpose(turn)
        image.save(root / f"{value}.jpg", quality=95, subsampling=0, exif=exif)
    return root


@pytest.fixture(scope="module", params=["wds", "ffcv"])
def upright(photos: Path, tmp_path_factory: pytest.TempPathFactory, request: object) -> ImageIndex:
    out = tmp_path_factory.mktemp("out") / "data"
    format_ = getattr(request, "param")  # noqa: B009
    report = ingest(photos, out, format=format_, workers=1, console=Console(quiet=True))
    assert report.splits[0].turned == 7
    return ImageIndex(out)


def views_of(index: ImageIndex, recipe: ViewRecipe, backend: str) -> np.ndarray:
    """Views (N, S, S, 3) in grey levels, by id."""
    loader = build_loader(
        index, [recipe], batch_size=len(index), shuffle=False, backend=backend, threads=1
    )
    (batch,) = loader.epoch(0)
    return np.stack([denormalised(view, recipe) for view in batch.views[0]]).astype(int)


def corners(view: np.ndarray) -> list[tuple[int, ...]]:
    """Mean colours of the four quarters, away from their edges."""
    s = view.shape[0]
    ends = [slice(s // 8, 3 * s // 8), slice(5 * s // 8, 7 * s // 8)]
    return [tuple(view[y, x].mean(axis=(0, 1)).round()) for y in ends for x in ends]


def test_the_photos_are_what_they_say(photos: Path) -> None:
    for value in VALUES:
        upright = ImageOps.exif_transpose(Image.open(photos / f"{value}.jpg"))
        assert np.abs(np.asarray(upright, dtype=int) - np.asarray(quarters())).mean() < 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_photo_is_seen_upright(upright: ImageIndex, backend: str) -> None:
    assert upright.rows["height"].tolist() == [48] * 8
    assert upright.rows["width"].tolist() == [64] * 8
    assert upright.manifest.settings["orientation"] == "upright"
    views = views_of(upright, EVALUATION, backend)
    for view in views:
        for found, expected in zip(corners(view), (RED, GREEN, BLUE, GRAY), strict=True):
            assert np.abs(np.array(found) - expected).max() <= 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_crops_are_of_the_upright_picture(
    upright: ImageIndex, tmp_path: Path, backend: str
) -> None:
    """Random crops are those of the same data set from upright files without a tag."""
    recipe = ViewRecipe(size=32, scale=(0.1, 0.5), jitter_p=0, gray_p=0, blur_p=0)
    (tmp_path / "plain").mkdir()
    for value in VALUES:
        quarters().save(tmp_path / "plain" / f"{value}.jpg", quality=95, subsampling=0)
    ingest(tmp_path / "plain", tmp_path / "data", workers=1, console=Console(quiet=True))
    expected = views_of(ImageIndex(tmp_path / "data"), recipe, backend)
    assert np.abs(views_of(upright, recipe, backend) - expected).mean() < 1
    assert np.abs(expected[1:] - expected[:-1]).mean(axis=(1, 2, 3)).min() > 5  # crops differ


@pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")
def test_backends_agree_on_kept_orientations(photos: Path, tmp_path: Path) -> None:
    """``keep``: every backend sees the pixels as they lie in the file."""
    quiet = Console(quiet=True)
    ingest(photos, tmp_path / "data", orientation="keep", workers=1, console=quiet)
    index = ImageIndex(tmp_path / "data")
    assert index.manifest.settings["orientation"] == "keep"
    heights = [48 if value < 5 else 64 for value in VALUES]
    assert index.rows["height"].tolist() == heights
    for key, stored in zip(index.keys, RecordReader(index).read(range(8)), strict=True):
        assert stored.tobytes() == (photos / key).read_bytes()
    views = views_of(index, EVALUATION, "dali")
    assert np.abs(views - views_of(index, EVALUATION, "pil")).mean() < 3
    # A camera held upside down: the last quarter comes first.
    for found, expected in zip(corners(views[2]), (GRAY, BLUE, GREEN, RED), strict=True):
        assert np.abs(np.array(found) - expected).max() <= 4


def test_the_contact_sheet_shows_them_upright(upright: ImageIndex) -> None:
    sheet = np.asarray(contact_sheet(upright, [EVALUATION], images=8, backend="pil"), dtype=int)
    # Originals stand in the first column, 96 pixels wide, one row every 96 + 16 + 8 pixels.
    for row in range(8):
        top = 8 + 16 + row * 120
        original = sheet[top : top + 72, 8 : 8 + 96]
        assert np.abs(original[18, 24] - RED).max() <= 4
        assert np.abs(original[54, 72] - GRAY).max() <= 4


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is damaged
def test_damaged_blocks_stop_no_backend(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    buffer = io.BytesIO()
    quarters().save(buffer, "JPEG", quality=95, subsampling=0)
    for i, block in enumerate(SILENT.values()):
        data = with_block(buffer.getvalue(), block)
        (tmp_path / "src" / f"{i:02d}.jpg").write_bytes(data)
    ingest(tmp_path / "src", tmp_path / "data", workers=1, console=Console(quiet=True))
    index = ImageIndex(tmp_path / "data")
    assert index.manifest.rejected == 0 and len(index) == len(SILENT)
    for backend in ("dali", "pil") if dali.AVAILABLE else ("pil",):
        for view in views_of(index, EVALUATION, backend):
            assert np.abs(np.array(corners(view)[0]) - RED).max() <= 4
