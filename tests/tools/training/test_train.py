"""The training loop: order of a step, resuming, refusing, recording."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.model.loss import ViewFeatures, views_loss
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.runs.checkpoint import list_checkpoints, load_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training import learner as learner_module
from coke.tools.training import step as train_step_module
from coke.tools.training.train import train
from tests.support.equal_states import equal_states
from tests.support.metric_records import records
from tests.support.stripes import draw_stripes
from tests.support.web_server import WebServer


def test_records_every_epoch_and_keeps_what_decides_the_run(
    stripes: Path, tiny: Config, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)
    last = train(tiny, stripes, tmp_path / "run", console=console)
    run = RunFolder(tmp_path / "run")
    assert run.config() == tiny
    found = records(run.path)
    assert [r["epoch"] for r in found] == [0, 1, 2, 3]
    assert found[0]["loss"] is None and found[0]["lr"] == 0
    for record in found[1:]:
        chance = (math.log(3) + math.log(5)) / 2
        assert record["loss_over_chance"] == pytest.approx(record["loss"] / chance)
        assert 0 <= record["data_wait"] <= 1 and record["images_per_second"] > 0
        for head, k in zip(record["heads"], (3, 5), strict=True):
            assert head["n_clusters"] == k
            assert 0 <= head["smallest"] <= 60 / k <= head["largest"] <= 60
            shortfall = max(0.0, 0.4 * 60 / k - head["smallest"])
            assert head["violation"] == pytest.approx(shortfall / (0.4 * 60 / k))
    assert last.epoch == 3 and last.loss == found[-1]["loss"]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("scan", "epoch 3/3", "ln K", "img/s", "data wait", "violation", "churn"):
        assert word in shown


def test_the_scan_moves_labels_and_statistics_but_no_weights(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_backward(*_: Any, **__: Any) -> None:
        raise AssertionError("the scan runs no training step")

    monkeypatch.setattr(learner_module, "train_step", no_backward)
    with pytest.raises(AssertionError, match="the scan runs no training step"):
        train(tiny, stripes, tmp_path / "run", console=quiet)
    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert state["epoch"] == 0
    fresh = build_model(tiny.model, tiny.seed)
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, state["model"][name]), name
    start = fresh.state_dict()["backbone.bn1.running_mean"]
    assert not torch.equal(start, state["model"]["backbone.bn1.running_mean"])
    unseen = Clustering(n_ids=60, dim=8, n_clusters=(3, 5))
    unseen.load_state_dict(state["clustering"])
    assert (unseen.label_store.read(torch.arange(60)) >= 0).all()


@pytest.mark.parametrize("labels_from", ["last_epoch", "current"])
@pytest.mark.parametrize("centers_from", ["last_epoch", "current"])
def test_the_couplings_of_table_2(
    labels_from: str,
    centers_from: str,
    stripes: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss sees what the step has read from the last epoch, or what it is about to write."""
    coupled = replace(
        tiny.clustering, labels_from=labels_from, centers_from=centers_from, dual_rule="paper"
    )
    seen: list[tuple[list[Tensor], list[Tensor]]] = []
    differs = {"labels": 0, "centers": 0}
    step = Clustering.step

    def spy_loss(
        large: list[ViewFeatures], centers: list[Tensor], targets: list[Tensor], **kwargs: Any
    ) -> Tensor:
        seen.append(([c.clone() for c in centers], [t.clone() for t in targets]))
        return views_loss(large, centers, targets, **kwargs)

    def spy_step(
        self: Clustering, features: Tensor, ids: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        last = list(self.label_store.read(ids))
        frozen = [head.centers.clone() for head in self.heads]
        running = [head.running_centers.clone() for head in self.heads]
        new = step(self, features, ids, valid)
        if self.epoch:
            centers, targets = seen.pop()
            for j in range(len(self.heads)):
                assert torch.equal(targets[j], (last if labels_from == "last_epoch" else new)[j])
                expected = frozen if centers_from == "last_epoch" else running
                assert torch.equal(centers[j], expected[j])
                differs["labels"] += not torch.equal(last[j], new[j])
                differs["centers"] += not torch.equal(frozen[j], running[j])
        return new

    monkeypatch.setattr(train_step_module, "views_loss", spy_loss)
    monkeypatch.setattr(Clustering, "step", spy_step)
    config = replace(tiny, clustering=coupled).changed(optimizer={"epochs": 1})
    train(config, stripes, tmp_path / "run", console=quiet)
    assert not seen
    assert min(differs.values()) > 0


def test_refuses_what_does_not_fit(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    run = tmp_path / "run"
    train(tiny.changed(optimizer={"epochs": 1}), stripes, run, console=quiet)
    with pytest.raises(ValueError, match=r"run exists and is not empty.*--resume"):
        train(tiny, stripes, run, console=quiet)
    with pytest.raises(ValueError, match="is complete: all 1 epochs are done"):
        train(tiny.changed(optimizer={"epochs": 1}), stripes, run, resume=True, console=quiet)
    other = replace(tiny, optimizer=replace(tiny.optimizer, lr=9.0)).changed(
        optimizer={"epochs": 1}
    )
    with pytest.raises(ValueError, match=r"optimizer\.lr: 0\.15 != 9\.0"):
        train(other, stripes, run, resume=True, console=quiet)
    draw_stripes(tmp_path / "more", 62, seed=0)
    ingest(tmp_path / "more", tmp_path / "other", workers=1, console=quiet)
    with pytest.raises(ValueError, match=r"another data set: .* 60 images .* has 62"):
        train(
            tiny.changed(optimizer={"epochs": 1}),
            tmp_path / "other",
            run,
            resume=True,
            console=quiet,
        )
    with pytest.raises(ValueError, match="is no training run"):
        train(tiny, stripes, tmp_path / "nothing", resume=True, console=quiet)
    many = replace(tiny, clustering=replace(tiny.clustering, n_clusters=(61,)))
    with pytest.raises(ValueError, match=r"a head with 61 clusters for 60 images"):
        train(many, stripes, tmp_path / "many", console=quiet)
    assert not (tmp_path / "many").exists(), "a run that cannot start leaves no folder"
    with pytest.raises(ValueError, match="the last batch has 1, too few for batch norm"):
        train(tiny.changed(data={"batch_size": 59}), stripes, tmp_path / "one", console=quiet)
    in_pieces = tiny.changed(data={"batch_size": 118}, optimizer={"accumulate": 2})
    with pytest.raises(ValueError, match="the last of 2 pieces a batch has 1, too few for batch"):
        train(in_pieces, stripes, tmp_path / "one", console=quiet)


@pytest.mark.slow
def test_a_url_trains_as_the_folder_does(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="http:// needs coke[http]")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = tiny.changed(optimizer={"epochs": 1}, data={"order": "blocks", "window": 2})
    here = train(config, stripes, tmp_path / "here", console=quiet)
    remote = config.changed(machine={"cache_dir": str(tmp_path / "cache"), "cache_gb": 0.1})
    web = WebServer(stripes)
    try:
        there = train(remote, web.url, tmp_path / "there", console=quiet)
    finally:
        web.stop()
    assert there.loss == here.loss
    data = json.loads((tmp_path / "there" / "data.json").read_text(encoding="utf-8"))
    assert data["folder"] == f"{web.url}/train"


@pytest.mark.slow
def test_another_shard_size_is_the_same_data_set(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Ids mean the same whatever the shards: such a copy may continue a run."""
    draw_stripes(tmp_path / "src", 60, seed=0)
    ingest(tmp_path / "src", tmp_path / "copy", shard_size=7, workers=1, console=quiet)
    assert ImageIndex(tmp_path / "copy").identity == ImageIndex(stripes / "train").identity
    train(tiny, stripes, tmp_path / "a", console=quiet)
    train(tiny, tmp_path / "copy", tmp_path / "b", console=quiet)
    a, b = (load_checkpoint(list_checkpoints(tmp_path / r / "checkpoints")[-1]) for r in "ab")
    assert equal_states(a, b)


@pytest.mark.slow
def test_keeps_only_the_newest_checkpoints(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    train(tiny.changed(run={"keep_checkpoints": 2}), stripes, tmp_path / "run", console=quiet)
    names = [p.name for p in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["epoch-0002", "epoch-0003"]


def test_a_copy_with_other_images_under_the_same_names_is_another_data_set(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Names alone do not make a data set: IDX files all have the same."""
    draw_stripes(tmp_path / "src", 60, seed=5)
    ingest(tmp_path / "src", tmp_path / "other", workers=1, console=quiet)
    assert ImageIndex(tmp_path / "other").keys == ImageIndex(stripes / "train").keys
    train(tiny.changed(optimizer={"epochs": 1}), stripes, tmp_path / "run", console=quiet)
    with pytest.raises(ValueError, match="another data set"):
        train(
            tiny.changed(optimizer={"epochs": 1}), tmp_path / "other", tmp_path / "run", resume=True
        )


@pytest.mark.slow
def test_float16_in_pieces_is_resumed_with_its_scale(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Short epochs; the scale that a gradient scaler has found is part of the run."""
    config = tiny.changed(
        machine={"precision": "fp16", "compile": False}, optimizer={"accumulate": 2}
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(config, stripes, whole, console=quiet)
    final = load_checkpoint(list_checkpoints(whole / "checkpoints")[-1])
    assert 0 < final["scaler"]["scale"] <= 65536
    train(config, stripes, halves, console=quiet)
    for newer in list_checkpoints(halves / "checkpoints")[2:]:
        shutil.rmtree(newer)
    train(config, stripes, halves, resume=True, console=quiet)
    assert equal_states(load_checkpoint(list_checkpoints(halves / "checkpoints")[-1]), final)
