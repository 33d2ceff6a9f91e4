"""``coke eval knn`` and ``coke eval linear`` on a run of the tiny data set."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.accuracy import Accuracy, topk_accuracy
from coke.tools.evaluation.clusters import eval_clusters
from coke.tools.evaluation.figures import accuracy_row
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.evaluation.labelled_data import labels_of, rows_of
from coke.tools.evaluation.linear import eval_linear
from coke.tools.evaluation.representations import Representation, extract, load_run, raw_pixels
from coke.tools.training.train import train
from tests.support.eval_report import REPORT
from tests.support.stripes import draw_stripes


def test_both_methods_report_three_rows_and_share_eval_json(run: Path, stripes: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    knn = eval_knn(run, stripes, console=console)
    linear = eval_linear(run, stripes, fast=True, console=console)
    saved = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    records = {record["method"]: record for record in saved.values()}
    assert list(records) == ["knn", "linear (fast)"]
    assert records["knn"]["settings"]["k"] == 20
    assert records["knn"]["settings"]["temperature"] == 0.07
    assert records["linear (fast)"]["settings"]["epochs"] == 60
    for report in (knn, linear):
        assert list(report.rows) == ["random initialisation", "raw pixels", "CoKe"]
        assert report.epoch == 1
        assert (report.train_images, report.test_images) == (60, 20)
        for name, accuracy in report.rows.items():
            assert 0 <= accuracy.top1 <= 100 and accuracy.top5 is None, name
        assert report.rows["raw pixels"].top1 == 100.0  # stripes are told apart by their pixels
        assert records[report.method]["rows"]["CoKe"]["top1"] == report.rows["CoKe"].top1
        assert records[report.method]["data"]["test"]["location"] == str(stripes / "test")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "CoKe, epoch 1" in shown and str(stripes / "test") in shown


@pytest.mark.slow
def test_the_protocol_trains_on_random_crops(run: Path, stripes: Path, quiet: Console) -> None:
    report = eval_linear(run, stripes, epochs=4, batch_size=16, console=quiet)
    assert report.method == "linear"
    assert report.settings["view"] == "random crop and flip"
    assert report.settings["batch_size"] == 16
    assert report.rows["CoKe"].top1 >= 60  # two classes


def test_features_come_by_id_and_from_the_trained_weights(
    run: Path, stripes: Path, quiet: Console
) -> None:
    config, model, _ = load_run(run)
    cpu = torch.device("cpu")
    rows: dict[str, Representation] = {"raw pixels": raw_pixels}
    index = ImageIndex(stripes / "test")
    features = extract(index, config, rows, 7, cpu, quiet)["raw pixels"]
    assert features.shape == (20, 3 * 16 * 16)
    again = extract(index, config, rows, 20, cpu, quiet)["raw pixels"]
    assert torch.equal(features, again), "features do not depend on the batch"
    labels = torch.from_numpy(index.labels)
    scores = knn_classify(features, labels, features, n_classes=2, k=1)
    assert topk_accuracy(scores, labels, 1) == 100.0
    saved = torch.load(run / "checkpoints" / "epoch-0001" / "state.pt", weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name


def test_an_earlier_epoch_can_be_evaluated(run: Path, stripes: Path, quiet: Console) -> None:
    assert eval_knn(run, stripes, epoch=0, baselines=False, console=quiet).epoch == 0
    with pytest.raises(ValueError, match="no checkpoint of epoch 7, only of 0, 1"):
        eval_knn(run, stripes, epoch=7, console=quiet)


def test_large_views_are_averaged_down_for_raw_pixels() -> None:
    images = torch.rand(2, 3, 64, 64)
    pixels = raw_pixels(images)
    assert pixels.shape == (2, 3 * 32 * 32)
    assert pixels[0, 0] == pytest.approx(float(images[0, 0, :2, :2].mean()))


def test_a_result_that_beats_no_baseline_is_told_from_one_that_does() -> None:
    rows = {
        name: accuracy_row(Accuracy(top1=50, top5=None), 10)
        for name in ("random initialisation", "CoKe")
    }
    report = replace(REPORT, rows=rows)
    assert not report.beats_baselines()
    better = accuracy_row(Accuracy(top1=51, top5=None), 10)
    assert replace(report, rows=rows | {"CoKe": better}).beats_baselines()


def test_data_without_labels_or_test_images_is_refused(
    run: Path, stripes: Path, tmp_path: Path, quiet: Console
) -> None:
    with pytest.raises(ValueError, match=r"is a single data set; name the test images with --test"):
        eval_knn(run, stripes / "train", console=quiet)
    assert eval_knn(run, stripes / "train", test=stripes / "test", console=quiet).test_images == 20
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "flat" / "a.png")
    ingest(tmp_path / "flat", tmp_path / "unlabelled", workers=1, console=quiet)
    with pytest.raises(ValueError, match="none of its 1 images has a class label"):
        eval_knn(run, stripes, test=tmp_path / "unlabelled", console=quiet)
    (tmp_path / "src" / "other").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "src" / "other" / "a.png")
    ingest(tmp_path / "src", tmp_path / "foreign", workers=1, console=quiet)
    with pytest.raises(ValueError, match="has 'other'. Ingest both together"):
        eval_knn(run, stripes, test=tmp_path / "foreign", console=quiet)
    with pytest.raises(ValueError, match="k is 0"):
        eval_knn(run, stripes, k=0, console=quiet)
    for temperature in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"temperature {temperature}; both must be positive"):
            eval_knn(run, stripes, temperature=temperature, console=quiet)
    with pytest.raises(ValueError, match="is no training run"):
        eval_linear(tmp_path / "nothing", stripes, console=quiet)


@pytest.mark.slow
def test_ids_without_an_image_have_no_row(
    run: Path, stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    draw_stripes(tmp_path / "src" / "train", 60, seed=0)
    draw_stripes(tmp_path / "src" / "test", 20, seed=1)
    gone = ("horizontal/000.jpg", "vertical/031.jpg")
    for key in gone:
        (tmp_path / "src" / "train" / key).unlink()
    ingest(tmp_path / "src", tmp_path / "out", base=stripes, workers=1, console=quiet)
    old, new = ImageIndex(stripes / "train"), ImageIndex(tmp_path / "out" / "train")
    assert (len(new), new.n_live) == (60, 58) and new.keys == old.keys
    device = torch.device("cpu")
    rows: dict[str, Representation] = {"raw pixels": raw_pixels}
    whole = extract(old, tiny, rows, 16, device, quiet)["raw pixels"]
    rest = extract(new, tiny, rows, 16, device, quiet)["raw pixels"]
    kept = [i for i, key in enumerate(old.keys) if key not in gone]
    assert torch.equal(rest, whole[kept])
    assert labels_of(new, device).tolist() == labels_of(old, device)[kept].tolist()
    assert rows_of(new, torch.tensor(kept)).tolist() == list(range(58))
    for fast in (True, False):
        report = eval_linear(run, tmp_path / "out", fast=fast, epochs=2, console=quiet)
        assert report.train_images == 58


@pytest.mark.slow
def test_data_may_have_other_classes_sizes_and_no_colour(
    run: Path, tmp_path: Path, quiet: Console
) -> None:
    """Grey images of 40 x 56 pixels of three classes, which their brightness tells apart."""
    for split, count in (("train", 12), ("test", 4)):
        for level, name in ((40, "dark"), (120, "grey"), (200, "light")):
            (tmp_path / "src" / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("L", (56, 40), level + i)
                image.putpixel((i, i), 255)
                image.save(tmp_path / "src" / split / name / f"{i}.png")
    ingest(tmp_path / "src", tmp_path / "data", workers=1, console=quiet)
    knn = eval_knn(run, tmp_path / "data", k=3, console=quiet)
    linear = eval_linear(run, tmp_path / "data", fast=True, console=quiet)
    larger = eval_linear(run, tmp_path / "data", epochs=2, size=32, console=quiet)
    for report in (knn, linear, larger):
        assert (report.train_images, report.test_images) == (36, 12)
        assert set(report.rows) == {"random initialisation", "raw pixels", "CoKe"}
    assert linear.rows["raw pixels"].top1 > 60.0, "chance is 33"
    assert (linear.settings["size"], larger.settings["size"]) == (16, 32)


class PatchEmbedding(nn.Conv2d):
    """As timm's: it takes images of one side only."""

    strict_img_size = True

    def __init__(self, img_size: int) -> None:
        super().__init__(3, 12, 8, stride=8)
        self.img_size = (img_size, img_size)


class Transformer(nn.Module):
    """Stands for a transformer of timm."""

    num_features = 12

    def __init__(self, img_size: int = 224) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == self.patch_embed.img_size[0]
        return nn.functional.relu(self.patch_embed(images)).mean(dim=(2, 3))


@pytest.mark.slow
def test_a_transformer_is_trained_and_evaluated_at_its_size(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_model(name: str, num_classes: int, pretrained: bool, **options: Any) -> nn.Module:
        assert (name, num_classes, pretrained) == ("transformer", 0, False)
        return Transformer(**options)

    stand_in = ModuleType("timm")
    monkeypatch.setattr(stand_in, "create_model", create_model, raising=False)
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    config = replace(
        tiny, model=replace(tiny.model, backbone="timm:transformer", image_size=16)
    ).changed(optimizer={"epochs": 1})
    larger = config.changed(data={"view": replace(config.data.view, evaluation_size=24)})
    with pytest.raises(
        ValueError, match=r"evaluation_size is 24, but timm:transformer .* side 16 only"
    ):
        train(larger, stripes, tmp_path / "larger", console=quiet)
    assert not (tmp_path / "larger").exists()
    train(config, stripes, tmp_path / "run", console=quiet)
    for report in (
        eval_knn(tmp_path / "run", stripes, console=quiet),
        eval_linear(tmp_path / "run", stripes, epochs=1, console=quiet),
    ):
        assert list(report.rows) == ["random initialisation", "raw pixels", "CoKe"]


@pytest.mark.slow
def test_partly_labelled_images_and_classes_without_training_images(
    run: Path, stripes: Path, tmp_path: Path
) -> None:
    """Every third training image has no label; the test set has a class of its own."""
    source = (stripes / ".." / "src").resolve()
    images = sorted((source / "train").rglob("*.jpg"))
    lines = [f"{p},{p.parent.name if i % 3 else ''},train" for i, p in enumerate(images)]
    tested = sorted((source / "test").rglob("*.jpg"))
    lines += [f"{p},{'other' if i < 5 else p.parent.name},test" for i, p in enumerate(tested)]
    (tmp_path / "table.csv").write_text(
        "\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8"
    )
    ingest(tmp_path / "table.csv", tmp_path / "data", workers=1, console=Console(quiet=True))
    console = Console(file=io.StringIO(), width=300)
    with pytest.raises(ValueError, match="20 of its 60 images have no class label"):
        eval_knn(run, tmp_path / "data", console=console)
    for report in (
        eval_knn(run, tmp_path / "data", k=100, labelled_only=True, console=console),
        eval_linear(run, tmp_path / "data", epochs=3, labelled_only=True, console=console),
        eval_linear(run, tmp_path / "data", fast=True, labelled_only=True, console=console),
    ):
        assert (report.train_images, report.test_images) == (40, 20)
        assert report.data.train.unlabelled == 20
        assert report.untrained_classes == {"other": 5}
        assert report.rows["raw pixels"].top1 <= 75.0, "five images cannot be right"
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "k is 100, but there are 40 training images" in shown
    assert shown.count("5 of 20 test images are of classes without a training image: 'other'") == 3
    saved = list(json.loads((run / "eval.json").read_text(encoding="utf-8")).values())
    assert saved[0]["settings"]["k"] == 40 and len(saved) == 3


@pytest.mark.slow
def test_weights_that_are_not_finite_have_no_accuracy(
    run: Path, stripes: Path, quiet: Console
) -> None:
    file = run / "checkpoints" / "epoch-0001" / "state.pt"
    state = torch.load(file, weights_only=True)
    state["model"]["backbone.conv1.weight"][0] = torch.nan
    torch.save(state, file)
    for evaluate in (eval_knn, eval_linear):
        with pytest.raises(ValueError, match=r"features of 'CoKe' are NaN or infinite for 20|60"):
            evaluate(run, stripes, console=quiet)
    assert not (run / "eval.json").exists()


@pytest.mark.slow
def test_a_classifier_that_diverges_is_told(run: Path, stripes: Path, quiet: Console) -> None:
    with pytest.raises(ValueError, match="the classifier diverged.*lower --lr"):
        eval_linear(run, stripes, fast=True, lr=1e29, console=quiet)
    for lr in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"lr {lr}.*must be positive"):
            eval_linear(run, stripes, lr=lr, console=quiet)


@pytest.mark.slow
def test_chosen_images_alone_are_learned_from(run: Path, stripes: Path, quiet: Console) -> None:
    """Seven images of each class; then one class alone, which no classifier can learn."""
    index = ImageIndex(stripes / "train")
    ids = np.sort(np.concatenate([np.flatnonzero(index.labels == c)[:7] for c in (0, 1)]))
    report = eval_knn(run, stripes, train_ids=ids, baselines=False, console=quiet)
    assert (report.train_images, report.test_images) == (14, 20)
    assert report.data.train.images == 14 and report.data.train.unlabelled == 0
    assert report.settings["ids_sha256"] == index.subset(ids).subset_sha256
    whole = eval_knn(run, stripes, baselines=False, console=quiet)
    assert whole.train_images == 60 and "ids_sha256" not in whole.settings
    assert whole.identity() != report.identity()
    one = np.flatnonzero(index.labels == 0)
    with pytest.raises(ValueError, match="are of the class .*a classifier needs at least two"):
        eval_knn(run, stripes, train_ids=one, console=quiet)
    found = eval_clusters(run, stripes, train_ids=ids, seeds=1, baselines=False, console=quiet)
    assert found.train_images == 14
