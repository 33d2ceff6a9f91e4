"""The training loop: order of a step, resuming, refusing, recording."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.clustering import Clustering
from coke.config import Config
from coke.model.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from coke.model.coke_model import build_model
from coke.pipeline.index import ImageIndex
from coke.tools import train as train_module
from coke.tools import train_step as train_step_module
from coke.tools.ingest import ingest
from coke.tools.run_folder import RunFolder
from coke.tools.train import train
from tests.tools.conftest import draw_stripes
from tests.web_server import WebServer


def equal_states(a: Any, b: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_states(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal_states, a, b))
    return bool(a == b)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
    assert list((run.path / "tensorboard").glob("events*"))


def test_the_scan_moves_labels_and_statistics_but_no_weights(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_backward(*_: Any) -> None:
        raise AssertionError("the scan runs no training step")

    monkeypatch.setattr(train_module, "train_step", no_backward)
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


def test_resuming_after_any_epoch_gives_the_uninterrupted_run(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(
        tiny,
        model=replace(tiny.model, predictor_hidden=8),
        beta=0.5,
        start_size=8,
        clustering=replace(tiny.clustering, first_stage_epochs=2),
    )
    whole = tmp_path / "whole"
    train(tiny, stripes, whole, console=quiet)
    final = load_checkpoint(list_checkpoints(whole / "checkpoints")[-1])
    save = save_checkpoint
    for stop in range(3):
        run = tmp_path / f"stopped-{stop}"

        def save_and_die(folder: Path, epoch: int, *args: Any, stop: int = stop) -> Path:
            path = save(folder, epoch, *args)
            if epoch == stop:
                raise KeyboardInterrupt
            return path

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "save_checkpoint", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                train(tiny, stripes, run, console=quiet)
        train(tiny, stripes, run, resume=True, console=quiet)
        resumed = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
        assert resumed["epoch"] == 3
        assert equal_states(resumed, final)
        same = [(r["epoch"], r["loss"], r["heads"]) for r in records(run)]
        assert same == [(r["epoch"], r["loss"], r["heads"]) for r in records(whole)]


def test_refuses_what_does_not_fit(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    run = tmp_path / "run"
    train(replace(tiny, epochs=1), stripes, run, console=quiet)
    with pytest.raises(ValueError, match=r"run exists and is not empty.*--resume"):
        train(tiny, stripes, run, console=quiet)
    with pytest.raises(ValueError, match="is complete: all 1 epochs are done"):
        train(replace(tiny, epochs=1), stripes, run, resume=True, console=quiet)
    other = replace(tiny, epochs=1, optimizer=replace(tiny.optimizer, lr=9.0))
    with pytest.raises(ValueError, match=r"optimizer\.lr: 0\.15 != 9\.0"):
        train(other, stripes, run, resume=True, console=quiet)
    draw_stripes(tmp_path / "more", 62, seed=0)
    ingest(tmp_path / "more", tmp_path / "other", workers=1, console=quiet)
    with pytest.raises(ValueError, match=r"another data set: .* 60 images .* has 62"):
        train(replace(tiny, epochs=1), tmp_path / "other", run, resume=True, console=quiet)
    with pytest.raises(ValueError, match="is no training run"):
        train(tiny, stripes, tmp_path / "nothing", resume=True, console=quiet)
    many = replace(tiny, clustering=replace(tiny.clustering, n_clusters=(61,)))
    with pytest.raises(ValueError, match=r"a head with 61 clusters for 60 images"):
        train(many, stripes, tmp_path / "many", console=quiet)
    assert not (tmp_path / "many").exists(), "a run that cannot start leaves no folder"
    with pytest.raises(ValueError, match="the last batch has 1, too few for batch norm"):
        train(replace(tiny, batch_size=59), stripes, tmp_path / "one", console=quiet)


def test_a_url_trains_as_the_folder_does(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="http:// needs coke[http]")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = replace(tiny, epochs=1, order="blocks", window=2)
    here = train(config, stripes, tmp_path / "here", console=quiet)
    remote = replace(config, cache_dir=str(tmp_path / "cache"), cache_gb=0.1)
    web = WebServer(stripes)
    try:
        there = train(remote, web.url, tmp_path / "there", console=quiet)
    finally:
        web.stop()
    assert there.loss == here.loss
    data = json.loads((tmp_path / "there" / "data.json").read_text())
    assert data["folder"] == f"{web.url}/train"


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


def test_keeps_only_the_newest_checkpoints(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    train(replace(tiny, keep_checkpoints=2), stripes, tmp_path / "run", console=quiet)
    names = [p.name for p in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["epoch-0002", "epoch-0003"]


def test_a_copy_with_other_images_under_the_same_names_is_another_data_set(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Names alone do not make a data set: IDX files all have the same."""
    draw_stripes(tmp_path / "src", 60, seed=5)
    ingest(tmp_path / "src", tmp_path / "other", workers=1, console=quiet)
    assert ImageIndex(tmp_path / "other").keys == ImageIndex(stripes / "train").keys
    train(replace(tiny, epochs=1), stripes, tmp_path / "run", console=quiet)
    with pytest.raises(ValueError, match="another data set"):
        train(replace(tiny, epochs=1), tmp_path / "other", tmp_path / "run", resume=True)


def test_a_torn_line_of_metrics_does_not_stop_a_resume(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    save = save_checkpoint

    def die_in_epoch_2(folder: Path, epoch: int, *args: Any) -> Path:
        if epoch == 2:
            raise KeyboardInterrupt
        return save(folder, epoch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_checkpoint", die_in_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, stripes, run, console=quiet)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "lo')
    train(tiny, stripes, run, resume=True, console=quiet)
    assert [r["epoch"] for r in records(run)] == [0, 1, 2, 3]


def test_a_diverged_epoch_is_not_saved(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_: Any, **__: Any) -> Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(train_step_module, "coke_loss", diverged)
    with pytest.raises(ValueError, match=r"loss of epoch 1 is nan.*lower optimizer\.lr"):
        train(tiny, stripes, tmp_path / "run", console=quiet)
    assert [p.name for p in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["epoch-0000"]
