"""Which images an evaluation uses, and what it says about the others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.labelled_data import live_labels, open_splits, rows_of

QUIET = Console(quiet=True)


def draw(root: Path, images: Mapping[str, int]) -> Path:
    """A folder of class folders, of plain images that all differ."""
    for name, count in images.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            seed = sum(map(ord, f"{root.name}/{name}")) * 1000 + i
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def ingested(source: Path, out: Path) -> Path:
    ingest(source, out, workers=1, console=QUIET)
    return out


def table(path: Path, rows: list[tuple[Path, str]]) -> Path:
    path.write_text(
        "path,label\n" + "".join(f"{image},{label}\n" for image, label in rows), encoding="utf-8"
    )
    return path


def test_a_result_names_place_split_identity_and_labels(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw(source / "train", {"a": 3, "b": 2})
    draw(source / "val", {"a": 1, "b": 2})
    data = ingested(source, tmp_path / "data")
    splits = open_splits(data, None)
    assert splits.records.train.location == str((data / "train").resolve())
    assert (splits.records.train.split, splits.records.test.split) == ("train", "val")
    assert splits.records.train.identity == splits.train.identity
    assert (splits.records.train.images, splits.records.test.images) == (5, 3)
    assert splits.records.train.unlabelled == 0 and splits.untrained == {}
    named = open_splits(data / "train", data / "val")
    assert named.records.test.split is None
    assert named.records.test.labels_sha256 == splits.records.test.labels_sha256


def test_test_images_that_are_training_images_are_counted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw(source / "train", {"a": 3, "b": 2})
    draw(source / "val", {"a": 1, "b": 2})
    for i in range(2):  # under other names, and of another class
        shutil.copy(source / "train" / "a" / f"{i}.png", source / "val" / "b" / f"again{i}.png")
    data = ingested(source, tmp_path / "data")
    assert open_splits(data, None).repeated == 2
    assert open_splits(data / "val", data / "train").repeated == 2
    assert open_splits(data / "train", data / "train").repeated == 5


def test_other_labels_of_the_same_images_are_another_record(tmp_path: Path) -> None:
    images = sorted(draw(tmp_path / "source", {"a": 2, "b": 2}).rglob("*.png"))
    records = []
    for name, labels in (("one", "aabb"), ("two", "abab")):
        rows = list(zip(images, labels, strict=True))
        data = ingested(table(tmp_path / f"{name}.csv", rows), tmp_path / name)
        records.append(open_splits(data, data).records.train)
    assert records[0].identity == records[1].identity
    assert records[0].labels_sha256 != records[1].labels_sha256


def test_partly_labelled_data_says_how_many_labels_are_missing(tmp_path: Path) -> None:
    images = sorted(draw(tmp_path / "source", {"a": 4, "b": 4}).rglob("*.png"))
    labels = ["a", "", "a", "a", "", "b", "b", "b"]
    rows = list(zip(images, labels, strict=True))
    data = ingested(table(tmp_path / "part.csv", rows), tmp_path / "part")
    with pytest.raises(ValueError, match=r"part: 2 of its 8 images .* with --labelled-only"):
        open_splits(data, data)
    splits = open_splits(data, data, labelled_only=True)
    assert splits.train.n_live == len(live_labels(splits.train)) == 6
    assert (splits.records.train.images, splits.records.train.unlabelled) == (6, 2)
    live = splits.train.live_ids
    assert live is not None
    assert live.tolist() == np.flatnonzero(splits.train.labels >= 0).tolist()
    assert rows_of(splits.train, torch.from_numpy(live)).tolist() == list(range(6))


def test_data_without_any_label_is_refused_either_way(tmp_path: Path) -> None:
    draw(tmp_path / "source", {".": 0})
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "source" / f"{i}.png")
    data = ingested(tmp_path / "source", tmp_path / "data")
    for labelled_only in (False, True):
        with pytest.raises(ValueError, match="none of its 3 images has a class label"):
            open_splits(data, data, labelled_only=labelled_only)


def test_classes_that_differ_are_named(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(8)]
    train = ingested(draw(tmp_path / "s1", dict.fromkeys([*names, "zz"], 1)), tmp_path / "train")
    same = ingested(draw(tmp_path / "s2", dict.fromkeys(names, 1)), tmp_path / "same")
    other = ingested(
        draw(tmp_path / "s3", dict.fromkeys([*names[1:], "yy", "zz"], 1)), tmp_path / "other"
    )
    with pytest.raises(ValueError, match=re.escape("differ: only " + str(train) + " has 'zz'. ")):
        open_splits(train, same)
    with pytest.raises(ValueError, match=r"has 'c0'; only .*other has 'yy'\. Ingest both together"):
        open_splits(train, other)
    foreign = ingested(draw(tmp_path / "s4", {"x": 1, "y": 1}), tmp_path / "foreign")
    with pytest.raises(ValueError, match="'c4' and 4 more; only"):
        open_splits(train, foreign)


def test_one_class_is_refused(tmp_path: Path) -> None:
    data = ingested(draw(tmp_path / "source", {"a": 3}), tmp_path / "data")
    with pytest.raises(ValueError, match=r"all of its 3 labelled images are of the class 'a'"):
        open_splits(data, data)


def test_test_images_of_classes_without_training_images_are_counted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw(source / "train", {"a": 3, "b": 2})
    draw(source / "test", {"a": 1, "zebra": 2, "yak": 1})
    splits = open_splits(ingested(source, tmp_path / "data"), None)
    assert splits.untrained == {"yak": 1, "zebra": 2}
    assert splits.trained.tolist() == [True, True, False, False]
