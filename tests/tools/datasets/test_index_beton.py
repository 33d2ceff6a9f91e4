"""`coke index`: a beton becomes a data set, and stays where it is."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import JPEG, RAW_RGB, ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets.index_beton import index_beton
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify
from coke.tools.evaluation.knn import eval_knn
from coke.tools.training.train import train
from tests.support.command_line import fails, run
from tests.support.damage import about, flip
from tests.support.stripes import draw_stripes
from tests.tools.datasets.beton_files import jpeg, make_beton


def stripes(count: int, side: int = 16) -> list[NDArray[np.uint8]]:
    """Smooth images, even ones with a horizontal and odd ones with a vertical gradient."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[:, None, None] + rng.integers(0, 50, (count, 1, 1, 3))
    planes = [np.broadcast_to(r, (side, side, 3)) for r in ramp]
    return [
        np.ascontiguousarray(p.swapaxes(0, 1) if i % 2 else p).astype(np.uint8)
        for i, p in enumerate(planes)
    ]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """60 images of two classes, every third one a JPEG, the others raw."""
    images = [jpeg(p) if i % 3 == 0 else p for i, p in enumerate(stripes(60))]
    return make_beton(tmp_path / "mixed.beton", images, {"label": [i % 2 for i in range(60)]})


def test_the_index_lies_beside_the_file_and_links_to_it(mixed: Path, quiet: Console) -> None:
    before = mixed.read_bytes()
    report = index_beton(mixed, console=quiet)
    assert report.out == mixed.with_suffix("") and (report.images, report.raw) == (60, 40)
    assert mixed.read_bytes() == before
    link = report.out / "images-00000.beton"
    assert link.is_symlink() and str(link.readlink()) == "../mixed.beton"
    index = ImageIndex(report.out)
    assert index.keys[:2] == ["000000000", "000000001"] and len(index) == 60
    assert index.labels.tolist() == [0, 1] * 30 and index.manifest.classes == ["0", "1"]
    assert index.rows["encoding"].tolist() == [JPEG, RAW_RGB, RAW_RGB] * 20
    assert verify(report.out, decode="all") == []
    moved = mixed.parent / "elsewhere"
    moved.mkdir()
    shutil.move(mixed, moved)
    shutil.move(report.out, moved)
    assert verify(moved / "mixed") == []  # they moved together


def test_an_index_elsewhere_and_again(mixed: Path, tmp_path: Path, quiet: Console) -> None:
    out = tmp_path / "deep" / "er" / "index"
    index_beton(mixed, out, console=quiet)
    assert verify(out) == []
    with pytest.raises(ValueError, match="not empty; add --overwrite"):
        index_beton(mixed, out, console=quiet)
    index_beton(mixed, out, label="none", overwrite=True, console=quiet)
    assert set(ImageIndex(out).labels) == {-1} and mixed.is_file()


def test_raw_pixels_reach_every_decoder_unchanged(mixed: Path, quiet: Console) -> None:
    index = ImageIndex(index_beton(mixed, console=quiet).out)
    whole = ViewRecipe(size=16, crop="center", center_fraction=1.0).evaluation()
    records = RecordReader(index).read(np.arange(60))
    for i, pixels in enumerate(stripes(60)):
        read = np.asarray(Image.open(io.BytesIO(records[i].tobytes())))
        assert np.abs(read.astype(int) - pixels).max() <= (4 if i % 3 == 0 else 0)
    for backend, views in (("dali", 1), ("dali", 2), ("pil", 1)):  # one view decodes only its crop
        loader = build_loader(index, [whole] * views, batch_size=8, backend=backend, threads=1)
        for batch in loader.epoch(0):
            for image_id, view in zip(batch.ids.tolist(), batch.views[-1], strict=True):
                seen = view.permute(1, 2, 0).numpy() * np.array(whole.std) + whole.mean
                expected = stripes(60)[image_id] / 255
                assert np.abs(seen - expected).max() < (5 if image_id % 3 == 0 else 0.6) / 255


@pytest.mark.slow
def test_it_trains_and_evaluates(mixed: Path, tiny: Config, tmp_path: Path, quiet: Console) -> None:
    data = index_beton(mixed, console=quiet).out
    train(tiny, data, tmp_path / "run", console=quiet)
    report = eval_knn(tmp_path / "run", data, test=data, k=3, console=quiet, baselines=False)
    assert 0 <= report.rows["CoKe"].top1 <= 100


def test_fields_of_other_names(tmp_path: Path, quiet: Console) -> None:
    numbers = {"first": [5, 6, 7], "second": [2, 0, 1]}
    beton = make_beton(tmp_path / "x.beton", stripes(3), numbers, image_field="pixels")
    report = index_beton(beton, console=quiet)
    assert report.fields == {"image": "pixels", "label": None, "id": None}  # either could be meant
    report = index_beton(beton, label="second", overwrite=True, console=quiet)
    assert ImageIndex(report.out).labels.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="no int field 'third'; give --label one of first, second"):
        index_beton(beton, tmp_path / "y", label="third", console=quiet)
    with pytest.raises(ValueError, match=r"no field 'photo'; its fields: pixels, first, second"):
        index_beton(beton, tmp_path / "y", image="photo", console=quiet)
    assert not (tmp_path / "y").exists()


def test_ids_follow_an_id_field(tmp_path: Path, quiet: Console) -> None:
    images = stripes(3)
    numbers = {"y": [4, 5, 6], "id": [12, 3, 7]}
    report = index_beton(make_beton(tmp_path / "x.beton", images, numbers), console=quiet)
    assert report.fields == {"image": "image", "label": "y", "id": "id"}
    index = ImageIndex(report.out)
    assert index.keys == ["000000003", "000000007", "000000012"]
    assert index.labels.tolist() == [5, 6, 4]
    records = RecordReader(index).read([0, 1, 2])
    shown = [np.asarray(Image.open(io.BytesIO(r.tobytes()))) for r in records]
    assert all((a == images[i]).all() for a, i in zip(shown, (1, 2, 0), strict=True))
    assert verify(report.out) == []
    twice = make_beton(tmp_path / "z.beton", images, {"id": [1, 1, 2]})
    assert index_beton(twice, console=quiet).fields["id"] is None
    with pytest.raises(ValueError, match="field 'id' does not number the samples"):
        index_beton(twice, tmp_path / "w", id_field="id", console=quiet)


def test_our_own_beton_keeps_its_ids(tmp_path: Path, color_set: Path, quiet: Console) -> None:
    source = color_set.parent / "src"
    ingest(source, tmp_path / "a", format="ffcv", shard_size=0, workers=1, console=quiet)
    report = index_beton(tmp_path / "a" / "images-00000.beton", tmp_path / "b", console=quiet)
    ingested, indexed = ImageIndex(tmp_path / "a"), ImageIndex(tmp_path / "b")
    assert report.fields == {"image": "image", "label": "label", "id": "id"}
    assert indexed.rows.tolist() == ingested.rows.tolist()
    assert indexed.manifest.checksums_sha256 == ingested.manifest.checksums_sha256
    assert verify(tmp_path / "b") == []


@pytest.mark.parametrize(
    ("images", "sides", "complaint"),
    [
        ([b"no jpeg"], [(4, 4)], "image at offset 2097152: is no JPEG, though the file says so"),
        ([jpeg(stripes(1)[0])], [(16, 17)], "has 16x16 pixels, the file says 17x16"),
        ([], [], "holds no samples"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    images: list[bytes],
    sides: list[tuple[int, int]],
    complaint: str,
    tmp_path: Path,
    quiet: Console,
) -> None:
    beton = make_beton(tmp_path / "x.beton", images, {"label": [0] * len(images)}, sides=sides)
    with pytest.raises(ValueError, match=complaint):
        index_beton(beton, console=quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.beton"]


def test_wrong_arguments(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(ValueError, match=r"gone\.beton is no file"):
        index_beton(tmp_path / "gone.beton", console=quiet)
    (tmp_path / "notes.txt").write_text(
        "not a beton, and longer than a header of one\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"notes\.txt is no beton of version 2"):
        index_beton(tmp_path / "notes.txt", console=quiet)
    beton = make_beton(tmp_path / "x.beton", stripes(2), {"label": [-5, 2]})
    with pytest.raises(ValueError, match=r"field 'label' holds -5..2; labels go from 0"):
        index_beton(beton, console=quiet)


def test_verify_follows_the_link(mixed: Path, quiet: Console) -> None:
    out = index_beton(mixed, console=quiet).out
    rows = ImageIndex(out).rows
    flip(mixed, int(rows["offset"][4]) + 5)  # raw: decodes to anything
    problems = verify(out)
    assert about(problems, "images-00000.beton", "id 4, key 000000004: its CRC-32 is not")
    mixed.rename(mixed.with_name("renamed.beton"))
    assert about(verify(out), "images-00000.beton: missing")


def test_the_manifest_says_where_it_came_from(mixed: Path, quiet: Console) -> None:
    out = index_beton(mixed, console=quiet).out
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["storage"] == "ffcv"
    assert manifest["settings"] == {
        "indexed": "mixed.beton",
        "fields": {"image": "image", "label": "label", "id": None},
    }


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 6, seed=0)
    data = tmp_path / "data"
    assert (
        run(
            monkeypatch,
            *("ingest", tmp_path / "src", data, "--workers", 1),
            *("--format", "ffcv", "--shard-size", 0),
        )
        == 0
    )
    beton = tmp_path / "all.beton"
    (data / "images-00000.beton").rename(beton)
    assert run(monkeypatch, "index", beton, "--id", "none", "--label", "none") == 0
    index = ImageIndex(tmp_path / "all")
    assert index.keys[5] == "000000005" and set(index.labels) == {-1}
    line = fails(monkeypatch, capsys, "index", beton, "--image", "id", "--overwrite")
    assert "field 'id' holds no images" in line
    assert run(monkeypatch, "verify", tmp_path / "all") == 0
    # The preset jitters, which FFCV's loader does not.
    settings = ("--preset", "demo", "--set", "clustering.n_clusters=[2]", "--loader", "ffcv")
    line = fails(monkeypatch, capsys, "train", tmp_path / "all", *settings)
    assert "loader ffcv crops, flips and normalises" in line
