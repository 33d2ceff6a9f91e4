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
from coke.tools.evaluation.probe import OnlineProbe, ProbeResult
from coke.tools.evaluation.representations import raw_pixels
from coke.tools.runs.checkpoint import list_checkpoints, load_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.train import train
from tests.support.equal_states import equal_states

CPU = torch.device("cpu")
RIGHT = ProbeResult(knn=100.0, linear=100.0)


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
    assert OnlineProbe(config, stripes, CPU).measure(pixels) == RIGHT
    assert pixels.training and Pixels.seen == 60 + 20
    chance = OnlineProbe(config, stripes, CPU).measure(Constant())
    assert chance == ProbeResult(knn=50.0, linear=50.0), "two classes of one size"
    small = config.changed(run={"probe_images": 10})
    Pixels.seen = 0
    first = OnlineProbe(small, stripes, CPU).measure(Pixels())
    assert Pixels.seen == 10 + 5 and first == OnlineProbe(small, stripes, CPU).measure(Pixels())


def test_without_a_test_set_a_fifth_is_held_out(stripes: Path, tiny: Config) -> None:
    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    Pixels.seen = 0
    assert OnlineProbe(config, stripes / "train", CPU).measure(Pixels()) == RIGHT
    assert Pixels.seen == 60
    constant = OnlineProbe(config, stripes / "train", CPU).measure(Constant())
    assert constant.knn is not None and 0 < constant.knn < 100
    assert constant.linear is not None and 0 < constant.linear < 100


def test_features_that_are_not_finite_have_no_accuracy(stripes: Path, tiny: Config) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return raw_pixels(images) / 0

    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    assert OnlineProbe(config, stripes, CPU).measure(Broken()) == ProbeResult()


def test_unlabelled_images_are_left_out_where_that_is_asked_for(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """30 labelled images of 2 classes among 6 without a label; a fifth of the 30 is held out."""
    lines = ["file,label"]
    for i, path in enumerate(sorted((stripes / ".." / "src" / "train").rglob("*.jpg"))[::2]):
        lines.append(f"{path.resolve()},{path.parent.name}")
        if i < 6:
            Image.new("RGB", (16, 16), (i * 40,) * 3).save(tmp_path / f"{i}.png")
            lines.append(f"{tmp_path / f'{i}.png'},")
    (tmp_path / "partly.csv").write_text("\n".join(lines), encoding="utf-8")
    data = tmp_path / "partly"
    ingest(tmp_path / "partly.csv", data, workers=1, console=quiet)
    config = tiny.changed(data={"loader": "pil"}, run={"probe_every": 1})
    expected = (
        "6 of its 36 images have no class label; leave those out with --set "
        "run.probe_labelled_only=true; name labelled images with --probe-data"
    )
    with pytest.raises(ValueError, match=expected):
        OnlineProbe(config, data, CPU)
    Pixels.seen = 0
    labelled = config.changed(run={"probe_labelled_only": True})
    assert OnlineProbe(labelled, data, CPU).measure(Pixels()) == RIGHT
    assert Pixels.seen == 30
    (tmp_path / "both").mkdir()
    for split in ("train", "test"):
        (tmp_path / "both" / split).symlink_to(data)
    with pytest.raises(ValueError, match=expected):
        OnlineProbe(config, tmp_path / "both", CPU)
    Pixels.seen = 0
    assert OnlineProbe(labelled, tmp_path / "both", CPU).measure(Pixels()) == RIGHT
    assert Pixels.seen == 60


def test_the_probe_is_due_at_the_scan_every_n_epochs_and_last(stripes: Path, tiny: Config) -> None:
    probe = OnlineProbe(tiny.changed(optimizer={"epochs": 5}, run={"probe_every": 2}), stripes, CPU)
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
    linear = [line["linear_probe"] for line in lines]
    assert [i for i, top1 in enumerate(linear) if top1 is not None] == [0, 2, 3]
    best = RunFolder(run).best()
    assert best is not None and best[1] == max(probes.values())
    names = {f"epoch-{best[0]:04d}", "epoch-0003"}
    assert {p.name for p in list_checkpoints(run / "checkpoints")} == names
    assert load_checkpoint(run / "checkpoints" / "best")["epoch"] == best[0]


@pytest.mark.slow
@pytest.mark.parametrize(("keep_best", "best"), [("knn", 1), ("linear", 0)])
def test_the_best_checkpoint_is_that_of_the_figure_that_is_asked_for(
    stripes: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
    keep_best: str,
    best: int,
) -> None:
    results = iter([ProbeResult(knn=1, linear=9), ProbeResult(knn=8, linear=2), ProbeResult(knn=5)])
    monkeypatch.setattr(OnlineProbe, "measure", lambda *_: next(results))
    config = tiny.changed(
        data={"loader": "pil"},
        optimizer={"epochs": 2},
        run={"probe_every": 1, "keep_checkpoints": 1, "keep_best": keep_best},
    )
    train(config, stripes, tmp_path / "run", console=quiet)
    kept = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept == [f"epoch-{best:04d}", "epoch-0002"]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best")["epoch"] == best


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
