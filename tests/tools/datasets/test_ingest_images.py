"""Ingest of unusual images: names, depths, dark sets, panoramas."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from rich.console import Console

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets.contact_sheet import contact_sheet
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify

QUIET = Console(quiet=True)


def recorder() -> Console:
    return Console(record=True, width=400, file=io.StringIO())


def rejections(folder: Path) -> dict[str, str]:
    _, *lines = (folder / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def save(path: Path, kind: str, image: Image.Image | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (32, 24), (200, 100, 50))).save(path, kind)


def brightest_stored(folder: Path) -> list[int]:
    index = ImageIndex(folder)
    stored = RecordReader(index).read(np.arange(len(index)))
    return [int(np.asarray(Image.open(io.BytesIO(data.tobytes()))).max()) for data in stored]


def twelve_bits(root: Path, count: int = 3) -> Path:
    """Gray PNGs of 16 bits that use 12: values 0..4080."""
    root.mkdir()
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 16, (8, 1))
    for i in range(count):
        Image.fromarray(np.roll(ramp, i)).save(root / f"{i}.png")
    return root


def test_names_of_all_formats_are_candidates_and_the_content_decides(tmp_path: Path) -> None:
    kinds = {
        "ppm": "PPM", "pgm": "PPM", "pbm": "PPM", "pnm": "PPM", "jfif": "JPEG", "jpe": "JPEG",
        "JPG": "JPEG", "bmp": "BMP", "dib": "DIB", "gif": "GIF", "tif": "TIFF", "png": "PNG",
    }  # fmt: skip
    kinds |= {"avif": "AVIF"} if features.check("avif") else {}
    kinds |= {"webp": "WEBP"} if features.check("webp") else {}
    kinds |= {"jp2": "JPEG2000", "j2k": "JPEG2000"} if features.check("jpg_2000") else {}
    for i, (extension, kind) in enumerate(kinds.items()):
        save(tmp_path / "src" / f"{i:02d}.{extension}", kind)
        save(tmp_path / "src" / f"{i:02d}-named-otherwise.jpg", kind)
    (tmp_path / "src" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    (tmp_path / "src" / "x.txt").write_text("text", encoding="utf-8")
    ingest(tmp_path / "src", tmp_path / "out", workers=1, console=QUIET)
    assert len(ImageIndex(tmp_path / "out")) == 2 * len(kinds)
    found = rejections(tmp_path / "out")
    assert sorted(found) == ["x.heic", "x.txt"]
    assert found["x.heic"] == "HEIF, which Pillow does not read: convert it to JPEG or PNG"
    assert verify(tmp_path / "out", decode="all", console=QUIET) == []


def test_a_set_that_turns_dark_is_warned_of_and_the_options_help(tmp_path: Path) -> None:
    src, out = twelve_bits(tmp_path / "src"), tmp_path / "out"
    console = recorder()
    ingest(src, out, workers=1, console=console)
    text = console.export_text()
    assert "3 of 3 converted images are dark throughout: no value above 15 of 255" in text
    assert "--sixteen-bit 12" in text and "--sixteen-bit scale" in text
    assert brightest_stored(out) == pytest.approx([15] * 3, abs=3)  # JPEG's error
    for choice in ("12", "scale"):
        console = recorder()
        ingest(src, out, workers=1, sixteen_bit=choice, overwrite=True, console=console)
        assert "warning" not in console.export_text()
        assert min(brightest_stored(out)) >= 250
        assert ImageIndex(out).manifest.settings["sixteen_bit"] == choice


def test_a_set_with_bright_images_is_not_warned_of(tmp_path: Path) -> None:
    src = twelve_bits(tmp_path / "src", 4)
    save(src / "bright.png", "PNG")
    console = recorder()
    ingest(src, tmp_path / "out", workers=1, console=console)
    assert "warning" not in console.export_text()


def test_unknown_ways_and_limits_are_refused_before_work(tmp_path: Path) -> None:
    for choice in ("8", "16", "auto"):
        with pytest.raises(ValueError, match=f"sixteen_bit is '{choice}'; choose one of high-byte"):
            ingest(tmp_path / "src", tmp_path / "out", sixteen_bit=choice, console=QUIET)
    with pytest.raises(ValueError, match="max_pixels is 0"):
        ingest(tmp_path / "src", tmp_path / "out", max_pixels=0, console=QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("check", ["decode", "header"])
def test_panoramas_need_a_named_option(check: str, tmp_path: Path) -> None:
    panorama = Image.new("L", (20_000, 9_000), 90)  # 180 million pixels, above Pillow's limit
    save(tmp_path / "src" / "wide.jpg", "JPEG", panorama)
    save(tmp_path / "src" / "small.jpg", "JPEG")
    out = tmp_path / "out"
    ingest(tmp_path / "src", out, workers=1, check=check, console=QUIET)
    reason = rejections(out)["wide.jpg"]
    assert reason.startswith("20000x9000 is 180,000,000 pixels, more than 178,956,970")
    assert "--max-pixels" in reason
    ingest(
        tmp_path / "src", out, workers=1, check=check, max_pixels=180_000_000, overwrite=True,
        console=QUIET,
    )  # fmt: skip
    index = ImageIndex(out)
    assert index.rows["width"].tolist() == [32, 20_000]
    if check == "header":  # the rest does not depend on it, and decodes for seconds
        return
    loader = build_loader(index, [ViewRecipe(size=8)], batch_size=2, shuffle=False, backend="pil")
    (batch,) = loader.epoch(0)
    assert batch.views[0].shape == (2, 3, 8, 8)
    contact_sheet(index, [ViewRecipe(size=8)], images=2, backend="pil")
    assert verify(out, decode="all", console=QUIET) == []
    ingest(
        tmp_path / "src", out, workers=1, check=check, max_pixels=180_000_000, overwrite=True,
        resize_shorter=90, console=QUIET,
    )  # fmt: skip
    assert ImageIndex(out).rows["width"].tolist() == [32, 200]
