"""The online probe: its accuracy, its epochs, and that it leaves training unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from coke.config.config import Config
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.probe import KnnProbe
from coke.tools.evaluation.representations import raw_pixels
from coke.tools.runs.checkpoint import list_checkpoints, load_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.train import train
from tests.support.equal_states import equal_states

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """Tells stripes apart perfectly, and notes how many images it sees."""

    seen = 0  # of the class: a probe computes with a copy

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        Pixels.seen += len(images)
        return raw_pixels(images)


class Constant(nn.Module):
    """Tells nothing apart."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 3)


def test_the_probe_measures_a_bounded_number_of_images(stripes: Path, tiny: Config) -> None:
    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    pixels, Pixels.seen = Pixels().train(), 0
    assert KnnProbe(config, stripes, CPU).top1(pixels) == 100.0
    assert pixels.training and Pixels.seen == 60 + 20
    assert KnnProbe(config, stripes, CPU).top1(Constant()) == 50.0, "two classes of one size"
    small = config.changed(run={"probe_images": 10})
    Pixels.seen = 0
    first = KnnProbe(small, stripes, CPU).top1(Pixels())
    assert Pixels.seen == 10 + 5 and first == KnnProbe(small, stripes, CPU).top1(Pixels())


def test_without_a_test_set_a_fifth_is_held_out(stripes: Path, tiny: Config) -> None:
    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    Pixels.seen = 0
    assert KnnProbe(config, stripes / "train", CPU).top1(Pixels()) == 100.0
    assert Pixels.seen == 60
    constant = KnnProbe(config, stripes / "train", CPU).top1(Constant())
    assert constant is not None and 0 < constant < 100


def test_features_that_are_not_finite_have_no_accuracy(stripes: Path, tiny: Config) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return raw_pixels(images) / 0

    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    assert KnnProbe(config, stripes, CPU).top1(Broken()) is None


def test_the_probe_is_due_at_the_scan_every_n_epochs_and_last(stripes: Path, tiny: Config) -> None:
    probe = KnnProbe(tiny.changed(optimizer={"epochs": 5}, run={"probe_every": 2}), stripes, CPU)
    assert [epoch for epoch in range(6) if probe.due(epoch)] == [0, 2, 4, 5]


@pytest.mark.slow
def test_agrees_with_eval_knn_and_changes_nothing_of_the_training(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Unlabelled images to train on, labelled ones to probe on; the best epoch's state stays."""
    plain = tiny.changed(data={"loader": "pil"}, run={"keep_checkpoints": 1})
    images = tmp_path / "src"
    for split in ("train",):
        for path in (stripes / ".." / "src" / split).rglob("*.jpg"):
            images.mkdir(exist_ok=True)
            (images / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    ingest(images, tmp_path / "unlabelled", labels="none", workers=1, console=quiet)
    train(plain, tmp_path / "unlabelled", tmp_path / "plain", console=quiet)
    probed, run = plain.changed(run={"probe_every": 2}), tmp_path / "probed"
    train(probed, tmp_path / "unlabelled", run, probe_data=stripes, console=quiet)
    ends = [load_checkpoint(p / "checkpoints" / "epoch-0003") for p in (tmp_path / "plain", run)]
    assert equal_states(*ends)
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    probes = {line["epoch"]: line["probe"] for line in lines if line["probe"] is not None}
    assert sorted(probes) == [0, 2, 3]
    report = eval_knn(run, stripes, baselines=False, console=quiet)
    assert report.epoch == 3 and report.rows["CoKe"].top1 == pytest.approx(probes[3])
    best = RunFolder(run).best()
    assert best is not None and best[1] == max(probes.values())
    names = {f"epoch-{best[0]:04d}", "epoch-0003"}
    assert {p.name for p in list_checkpoints(run / "checkpoints")} == names
    assert load_checkpoint(run / "checkpoints" / "best")["epoch"] == best[0]


def test_data_that_the_probe_cannot_use_is_refused_before_the_run(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    config = tiny.changed(run={"probe_every": 1})
    (tmp_path / "flat").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (i * 60,) * 3).save(tmp_path / "flat" / f"{i}.png")
    ingest(tmp_path / "flat", tmp_path / "unlabelled", workers=1, console=quiet)
    with pytest.raises(ValueError, match=r"has a class label .*; name labelled .* --probe-data"):
        train(config, stripes, tmp_path / "r", probe_data=tmp_path / "unlabelled", console=quiet)
    with pytest.raises(ValueError, match="the probe cannot be made: .*nowhere"):
        train(config, stripes, tmp_path / "r", probe_data=tmp_path / "nowhere", console=quiet)
    with pytest.raises(ValueError, match="--probe-data needs --probe-every"):
        train(tiny, stripes, tmp_path / "r", probe_data=stripes, console=quiet)
    assert not (tmp_path / "r").exists()
