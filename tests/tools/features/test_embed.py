"""``coke embed``: features by id, continued after an interruption, and clustered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor

from coke.config.config import Config
from coke.model import inference, precision
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.representations import Representation, extract, frozen, load_run
from coke.tools.features import embed as embed_module
from coke.tools.features import feature_rows
from coke.tools.features.cluster import cluster
from coke.tools.features.cluster_settings import ClusterSettings
from coke.tools.features.embed import EmbedSettings, embed
from coke.tools.features.feature_rows import FeatureRows
from coke.tools.training.train import train
from tests.support.stripes import draw_stripes

QUIET = Console(quiet=True)
SMALL = EmbedSettings(batch_size=16, device="cpu", precision="fp32")
PIXELS = replace(SMALL, preset="cifar10", size=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def run(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(_tiny(), stripes, folder, console=QUIET)
    return folder


def _tiny() -> Config:
    from coke.config.clustering import ClusteringConfig
    from coke.config.model import ModelConfig
    from coke.config.presets import presets

    return replace(
        presets["demo"],
        model=ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8),
        clustering=ClusteringConfig(n_clusters=(3,)),
    ).changed(
        preset="custom",
        optimizer={"epochs": 1},
        data={
            "batch_size": 16,
            "start_size": 0,
            "view": replace(presets["cifar10"].data.view, size=16, evaluation_size=0),
        },
        machine={"device": "cpu", "threads": 1},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_features_are_those_of_an_evaluation(run: Path, stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = embed(run, stripes, out, SMALL, console=QUIET)
    config, model, epoch = load_run(run)
    index = ImageIndex(stripes / "train")
    (expected,) = extract(
        index, config, {"CoKe": frozen(model.backbone, CPU)}, 16, CPU, QUIET
    ).values()
    features = np.load(out / "features.npy")
    assert features.dtype == np.float32 and np.array_equal(features, expected.numpy())
    assert np.load(out / "ids.npy").tolist() == list(range(60))
    assert np.array_equal(np.load(out / "classes.npy"), index.labels)
    assert (out / "keys.txt").read_text(encoding="utf-8").splitlines() == index.keys
    about = json.loads((out / "embed.json").read_text(encoding="utf-8"))
    assert (about["rows"], about["width"], about["epoch"]) == (60, report.width, epoch)
    assert about["classes"] == ["horizontal", "vertical"] and about["layer"] == "backbone"
    assert about["identity"] == index.identity
    assert (about["precision"], about["batch_size"]) == ("fp32", 16)
    assert names(tmp_path) == ["out"]

    projected = embed(
        run, stripes, tmp_path / "p", replace(SMALL, layer="projector"), split="test", console=QUIET
    )
    assert (projected.rows, projected.width) == (20, 8)
    norms = np.linalg.norm(np.load(tmp_path / "p" / "features.npy"), axis=1)
    assert norms == pytest.approx(np.ones(20), abs=1e-5)
    embed(run, stripes, tmp_path / "half", replace(SMALL, dtype="float16"), console=QUIET)
    half = np.load(tmp_path / "half" / "features.npy")
    assert half.dtype == np.float16 and np.array_equal(half, features.astype(np.float16))


def test_embed_and_cluster_chain(stripes: Path, tmp_path: Path) -> None:
    embed("pixels", stripes, tmp_path / "e", PIXELS, console=QUIET)
    assert np.load(tmp_path / "e" / "features.npy").shape == (60, 3 * 16 * 16)
    cluster(tmp_path / "e", tmp_path / "c", ClusterSettings(clusters=2), console=QUIET)
    index = ImageIndex(stripes / "train")
    head, *lines = (tmp_path / "c" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    assert head == "id\tkey\tcluster"
    ids, keys, clusters = zip(*(line.split("\t") for line in lines), strict=True)
    assert [int(i) for i in ids] == list(range(60)) and list(keys) == index.keys
    # Stripes of one direction are alike: each cluster is a class.
    found = np.array(clusters, dtype=int) == index.labels
    assert found.all() or not found.any()


def test_tombstones_have_no_row(tmp_path: Path) -> None:
    draw_stripes(tmp_path / "src", 6, seed=0)
    ingest(tmp_path / "src", tmp_path / "old", workers=1, console=QUIET)
    gone = ImageIndex(tmp_path / "old").keys[2]
    (tmp_path / "src" / gone).unlink()
    ingest(tmp_path / "src", tmp_path / "new", base=tmp_path / "old", workers=1, console=QUIET)
    embed("pixels", tmp_path / "new", tmp_path / "e", PIXELS, console=QUIET)
    assert np.load(tmp_path / "e" / "ids.npy").tolist() == [0, 1, 3, 4, 5]
    assert len(np.load(tmp_path / "e" / "features.npy")) == 5
    assert gone not in (tmp_path / "e" / "keys.txt").read_text(encoding="utf-8").splitlines()


def test_images_without_classes_have_no_classes_file(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / "src" / f"{i}.png")
    ingest(tmp_path / "src", tmp_path / "data", workers=1, console=QUIET)
    embed("pixels", tmp_path / "data", tmp_path / "e", PIXELS, console=QUIET)
    assert names(tmp_path / "e") == ["embed.json", "features.npy", "ids.npy", "keys.txt"]


def test_random_weights_are_given_the_statistics_of_the_data(stripes: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, preset="demo", size=16, layer="projector")
    embed("random", stripes, tmp_path / "a", settings, console=QUIET)
    embed("random", stripes, tmp_path / "b", settings, console=QUIET)
    features = np.load(tmp_path / "a" / "features.npy")
    assert np.array_equal(features, np.load(tmp_path / "b" / "features.npy"))
    # Batch norm without statistics would leave a common direction far larger than all others.
    assert np.linalg.norm(features.mean(axis=0)) < 0.5
    assert json.loads((tmp_path / "a" / "embed.json").read_text(encoding="utf-8"))["epoch"] is None


@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_run_continues_to_the_same_bytes(
    killed: bool, run: Path, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a key, or killed: then what was saved by the clock is there, and a torn rest."""
    whole = tmp_path / "whole"
    embed(run, stripes, whole, SMALL, console=QUIET)
    seen: list[int] = []

    def failing(*arguments: Any) -> Representation:
        represent = frozen(*arguments)

        def counted(images: Tensor) -> Tensor:
            seen.append(len(images))
            if len(seen) == 4:
                raise RuntimeError("killed") if killed else KeyboardInterrupt
            return represent(images)

        return counted

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(embed_module, "frozen", failing)
        patch.setattr(feature_rows, "_SAVED_EVERY", 0.0 if killed else 1e9)
        with pytest.raises(RuntimeError if killed else KeyboardInterrupt):
            embed(run, stripes, out, SMALL, console=QUIET)
    assert not out.exists()
    (features,) = (tmp_path / ".out.partial").glob("*/dataset/features.npy")
    with features.open("ab") as file:
        file.write(b"torn")
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(embed_module, "frozen", lambda *a: _counted(frozen(*a), seen))
        report = embed(run, stripes, out, SMALL, console=QUIET)
    assert report.resumed == 48 and seen == [12]
    for name in ("features.npy", "ids.npy", "keys.txt", "classes.npy"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert names(tmp_path) == ["out", "whole"]


def _counted(represent: Representation, seen: list[int]) -> Representation:
    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return represent(images)

    return counted


@pytest.mark.slow
def test_a_run_that_continues_keeps_the_precision_that_was_measured(
    run: Path, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 was faster at first. Rows of two precisions in one file would not compare."""
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: True)
    settings, out = replace(SMALL, precision=None), tmp_path / "out"

    def measured(*seconds: float) -> None:
        times = iter(seconds)
        monkeypatch.setattr(inference, "fastest", lambda work: next(times))

    with monkeypatch.context() as patch:
        measured(1.0, 0.5)
        patch.setattr(FeatureRows, "append", _interrupted(FeatureRows.append, after=2))
        with pytest.raises(KeyboardInterrupt):
            embed(run, stripes, out, settings, console=QUIET)
    measured()
    assert embed(run, stripes, out, settings, console=QUIET).resumed == 32
    assert json.loads((out / "embed.json").read_text(encoding="utf-8"))["precision"] == "bf16"
    expected = replace(settings, precision="bf16")
    embed(run, stripes, tmp_path / "whole", expected, console=QUIET)
    whole = (tmp_path / "whole" / "features.npy").read_bytes()
    assert (out / "features.npy").read_bytes() == whole


def _interrupted(append: Callable[..., None], after: int) -> Callable[..., None]:
    calls: list[int] = []

    def interrupted(self: FeatureRows, features_BD: NDArray[np.float32]) -> None:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        append(self, features_BD)

    return interrupted


def test_other_settings_start_afresh(
    run: Path, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Representation:
        def represent(images: Tensor) -> Tensor:
            calls.append(1)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return images.flatten(1)[:, :8]

        return represent

    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(embed_module, "frozen", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(run, stripes, tmp_path / "out", SMALL, console=QUIET)
    report = embed(run, stripes, tmp_path / "out", replace(SMALL, size=24), console=QUIET)
    assert report.resumed == 0
    assert names(tmp_path) == ["out"]


def test_a_disk_without_room_is_found_at_the_first_batch(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 60 * 768 * 4 - 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"features of 60 images take 0\.0 GB, .* --dtype float16"):
        embed("pixels", stripes, tmp_path / "e", PIXELS, console=QUIET)
    assert names(tmp_path) == []
    embed("pixels", stripes, tmp_path / "e", replace(PIXELS, dtype="float16"), console=QUIET)


def test_a_place_that_cannot_be_written_is_found_before_any_image_is_read(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(embed_module, "evaluation_loader", None)
    for out in ("file", "file/out", "file/a/out", "a" * 300):
        with pytest.raises(ValueError, match="is a file; give a folder|cannot write .*; choose an"):
            embed("pixels", stripes, tmp_path / out, PIXELS, console=QUIET)
    assert names(tmp_path) == ["file"]


def test_refuses_what_it_cannot_embed(run: Path, stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def error(run: Path | str, data: Path, settings: EmbedSettings = SMALL, **more: Any) -> str:
        with pytest.raises(ValueError, match=".") as caught:
            embed(run, data, out, settings, console=QUIET, **more)
        assert not out.exists()
        return str(caught.value)

    assert "is no training run" in error(tmp_path / "gone", stripes)
    assert "does not exist" in error(run, tmp_path / "gone")
    assert "nor in sunday" in error(run, stripes, split="sunday")
    assert "is a single data set; leave out --split" in error(run, stripes / "train", split="test")
    assert "no checkpoint of epoch 9" in error(run, stripes, replace(SMALL, epoch=9))
    assert "--epoch 1 needs a run" in error("random", stripes, replace(SMALL, epoch=1))
    assert "--preset demo is for" in error(run, stripes, replace(SMALL, preset="demo"))
    assert "`pixels` has none" in error("pixels", stripes, replace(SMALL, layer="projector"))
    assert "view size is 2" in error(run, stripes, replace(SMALL, size=2))
    for wrong, message in (
        ({"layer": "head"}, "--layer is 'head'; choose one of backbone, projector"),
        ({"dtype": "int8"}, "--dtype is 'int8'"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"precision": "int8"}, "--precision is 'int8'; choose one of auto, fp32, tf32, bf16"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **wrong)
    embed("pixels", stripes, out, PIXELS, console=QUIET)
    with pytest.raises(ValueError, match="add --overwrite"):
        embed("pixels", stripes, out, PIXELS, console=QUIET)
    embed("pixels", stripes, out, PIXELS, split="test", overwrite=True, console=QUIET)
    assert len(np.load(out / "ids.npy")) == 20
    shutil.copy(out / "ids.npy", out / "mine.npy")
    with pytest.raises(ValueError, match=r"mine\.npy, which is no part of a coke embedding"):
        embed("pixels", stripes, out, PIXELS, overwrite=True, console=QUIET)
