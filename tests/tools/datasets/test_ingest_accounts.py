"""The table of an ingest adds up to what is there: over random sources."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from rich.console import Console

from coke.pipeline.sources import find_splits
from coke.tools.datasets import ingest as ingest_module
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.ingest_report import IngestReport
from tests.support.random_layouts import files_in, image_bytes, random_folders, random_tars


def ingested(src: Path, out: Path) -> IngestReport | None:
    """The report; None where nothing in the source, or in a split of it, can be stored."""
    try:
        return ingest(src, out, workers=1, console=Console(quiet=True))
    except ValueError as error:
        if "no images in" not in str(error) and "were rejected" not in str(error):
            raise
        return None


@pytest.mark.slow  # 60 ingests
def test_random_sources_add_up(tmp_path: Path) -> None:
    accepted = 0
    for seed in range(60):
        rng, src, out = random.Random(seed), tmp_path / f"src-{seed}", tmp_path / f"out-{seed}"
        if seed % 4:
            random_folders(rng, src)
            there = len(files_in(src))
        else:
            there = random_tars(rng, src)
        report = ingested(src, out)
        if report is None:
            assert not out.exists()
            continue
        accepted += 1
        keys = sum(
            len(path.read_text(encoding="utf-8").splitlines()) for path in out.rglob("keys.txt")
        )
        rows = [line for path in out.rglob("rejected.tsv")
                for line in path.read_text(encoding="utf-8").splitlines()[1:]]  # fmt: skip
        assert report.found == there and sum(split.images for split in report.splits) == keys
        if seed % 4:  # a row may stand for several members of a tar
            assert keys + len(rows) == there
    assert accepted > 30


def test_a_file_that_is_lost_stops_the_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "1.jpg").write_bytes(image_bytes(random.Random(0)))
    (tmp_path / "src" / "notes.txt").write_text("x", encoding="utf-8")

    def forgetful(*args: object, **kwargs: object) -> object:
        found = find_splits(tmp_path / "src")
        found.there += 1
        return found

    monkeypatch.setattr(ingest_module, "find_splits", forgetful)
    with pytest.raises(AssertionError, match="2 files are accounted for, 3 are there"):
        ingest(tmp_path / "src", tmp_path / "out", workers=1, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_the_table_and_the_notes_name_what_is_in_no_split(tmp_path: Path) -> None:
    for name in ("train/a/1.jpg", "test/a/1.jpg", "masks/1.jpg", "masks/notes.txt"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(image_bytes(random.Random(3)))
    text = io.StringIO()
    for _ in range(2):  # what is there is replaced, with its list
        report = ingest(
            tmp_path / "src", tmp_path / "out", workers=1, overwrite=True,
            console=Console(file=text, width=200),
        )  # fmt: skip
    assert report.found == 4 and report.beside == 2
    assert "note: 1 image in masks/ is in no split (train, test)" in text.getvalue()
    lines = [line for line in text.getvalue().splitlines() if line.startswith("│")][-7:]
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in lines] == [
        ["found", "1", "1", "2"],
        ["images", "1", "1", ""],
        ["rejected", "0", "0", ""],
        ["other files", "0", "0", "2"],
        ["classes", "1", "1", ""],
        ["containers", "1", "1", ""],
        ["size", "0.0 MB", "0.0 MB", ""],
    ]
    assert (tmp_path / "out" / "rejected.tsv").read_text(encoding="utf-8") == (
        "key\treason\n"
        "masks/1.jpg\tin no split: it lies beside the folders of the splits\n"
        "masks/notes.txt\tnot an image file: its name ends otherwise\n"
    )
