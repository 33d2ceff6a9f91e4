"""Containers: pure functions of their plan that WebDataset and DALI read."""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from coke.files.hashing import file_sha256
from coke.pipeline.containers.plan import Candidate, ContainerPlan
from coke.pipeline.containers.tar import dali_index, tar_members
from coke.pipeline.containers.tar_container import write_tar_container
from coke.pipeline.images.jpeg import check
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.sources import find_splits

FIRST_ID = 40


@pytest.fixture
def plan(tmp_path: Path) -> ContainerPlan:
    """Six JPEGs and a PNG in classes a and b."""
    rng = np.random.default_rng(0)
    for i in range(7):
        path = tmp_path / "src" / "ab"[i % 2] / f"{i}{'.png' if i == 6 else '.jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    source = find_splits(tmp_path / "src")[""]
    (tmp_path / "out").mkdir()
    data = [source.read(i) for i in range(len(source))]
    return ContainerPlan(
        folder=tmp_path / "out",
        number=3,
        start=FIRST_ID,
        stop=FIRST_ID + 7,
        ids=tuple(range(FIRST_ID, FIRST_ID + 7)),
        records=source,
        candidates=tuple(
            Candidate(verdict=check(d, StorageSettings()), crc32=zlib.crc32(d)) for d in data
        ),
        settings=StorageSettings(),
    )


def test_rows_point_at_the_images(plan: ContainerPlan) -> None:
    written = write_tar_container(plan)
    tar = (plan.folder / "images-00003.tar").read_bytes()
    assert written.container.name == "images-00003.tar"
    assert (written.container.start, written.container.stop) == (FIRST_ID, FIRST_ID + 7)
    assert written.container.size == len(tar)
    assert written.container.sha256 == file_sha256(plan.folder / "images-00003.tar")
    for i, row in enumerate(written.rows):
        data = tar[int(row["offset"]) : int(row["offset"]) + int(row["length"])]
        assert zlib.crc32(data) == written.crc32[i]
        image = Image.open(io.BytesIO(data))
        assert image.format == "JPEG" and image.size == (row["width"], row["height"])
        if plan.records.keys[i].endswith(".jpg"):
            assert data == plan.records.read(i)
        assert row["label"] == plan.records.labels[i] and row["container"] == 3


@pytest.mark.parametrize("labelled", [True, False])
def test_the_bytes_are_those_of_webdatasets_own_writer(plan: ContainerPlan, labelled: bool) -> None:
    records = plan.records if labelled else replace(plan.records, labels=(-1,) * 7)
    written = write_tar_container(replace(plan, records=records))
    tar = (plan.folder / "images-00003.tar").read_bytes()
    expected = io.BytesIO()
    with webdataset.TarWriter(
        expected, encoder=False, mtime=0, user="coke", group="coke", mode=0o644
    ) as writer:
        for image_id, row in zip(plan.ids, written.rows, strict=True):
            start = int(row["offset"])
            record = {"__key__": f"{image_id:09d}", "id": str(image_id).encode()}
            record["jpg"] = tar[start : start + int(row["length"])]
            if row["label"] >= 0:
                record["cls"] = str(row["label"]).encode()
            writer.write(record)
    assert tar == expected.getvalue()
    assert (plan.folder / "images-00003.idx").read_text(encoding="utf-8") == dali_index(
        list(tar_members(plan.folder / "images-00003.tar"))
    )


def test_webdataset_reads_ids_and_labels(plan: ContainerPlan) -> None:
    write_tar_container(plan)
    tar = str(plan.folder / "images-00003.tar")
    samples = list(webdataset.WebDataset([tar], shardshuffle=False))
    assert [int(s["id"]) for s in samples] == list(range(FIRST_ID, FIRST_ID + 7))
    assert [int(s["cls"]) for s in samples] == list(plan.records.labels)
    unlabelled = replace(plan, records=replace(plan.records, labels=(-1,) * 7))
    write_tar_container(unlabelled)
    assert not any("cls" in s for s in webdataset.WebDataset([tar], shardshuffle=False))


def test_dali_index_is_what_dalis_own_script_writes(plan: ContainerPlan) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    write_tar_container(plan)
    tar = plan.folder / "images-00003.tar"
    with wds2idx.IndexCreator(str(tar), str(plan.folder / "theirs.idx"), verbose=False) as creator:
        creator.create_index()
    assert tar.with_suffix(".idx").read_bytes() == (plan.folder / "theirs.idx").read_bytes()
    assert dali_index(list(tar_members(tar))) == tar.with_suffix(".idx").read_text(encoding="utf-8")


def test_bytes_are_a_function_of_the_plan(plan: ContainerPlan) -> None:
    first = write_tar_container(plan).container
    assert write_tar_container(plan).container == first
    assert (
        write_tar_container(replace(plan, settings=StorageSettings(quality=50))).container.sha256
        != first.sha256
    )
    with tarfile.open(plan.folder / "images-00003.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "coke", 0o644)}


@pytest.mark.parametrize("happens", ["changed", "vanished"])
def test_an_image_that_changes_between_the_passes_stops_it(
    plan: ContainerPlan, happens: str
) -> None:
    path = Path(plan.records.describe(2))
    if happens == "vanished":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(
        ValueError, match=rf"{path.name} (changed while it was being|was read before, and c)"
    ):
        write_tar_container(plan)
