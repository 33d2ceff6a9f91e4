"""From wishes to settings on real data: facts, pieces, epochs; and the run is that of its file."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from coke.config.config import Config
from coke.config.facts import DataFacts
from coke.config.overrides import load_toml
from coke.config.resolve import resolve_config
from coke.config.wishes import Wishes
from coke.distributed.free_memory import FreeMemory
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets.ingest import ingest
from coke.tools.training import memory_check, settle
from coke.tools.training.data_facts import data_facts
from coke.tools.training.memory_check import MemoryCheck
from coke.tools.training.settle import settled
from coke.tools.training.speed import Speed
from coke.tools.training.train import train
from tests.support.made_up_memory import made_up
from tests.support.pretended_machine import free_memory_files, pretended_open

CPU = torch.device("cpu")


@pytest.fixture
def index(stripes: Path) -> ImageIndex:
    return ImageIndex(stripes / "train")


def shown(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_facts_of_images_in_colour(index: ImageIndex) -> None:
    assert data_facts(index) == DataFacts(images=60, side=int(index.rows["height"][0]))


def test_facts_of_gray_images_stored_in_three_channels(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for i in range(5):
        gray = np.random.default_rng(i).integers(0, 256, (20 + 2 * i, 60), dtype=np.uint8)
        Image.fromarray(gray).convert("RGB").save(tmp_path / "src" / f"{i}.png")
    ingest(tmp_path / "src", tmp_path / "out", workers=1, console=Console(quiet=True))
    found = data_facts(ImageIndex(tmp_path / "out"))
    assert found == DataFacts(images=5, side=24, gray=True)


def test_an_epoch_and_what_fits_a_time() -> None:
    """Views of 16, 20 and 24 pixels take 16, 25 and 36 of a unit."""
    config = Config().changed(
        data={"start_size": 16, "view": Config().data.view}, optimizer={"epochs": 4}
    )
    view = config.data.view
    config = config.changed(data={"view": type(view)(size=24)})
    sizes = [config.recipes_at(epoch)[0].size for epoch in (1, 2, 3, 4)]
    assert sizes == [16, 16, 20, 24]
    speed = Speed(scan=100.0, first=16.0, last=36.0)
    assert speed.epoch(config) == pytest.approx((16 + 16 + 25 + 36) / 4)
    same = Speed(scan=20.0, first=10.0, last=10.0)
    plain = Config()
    assert same.epoch(plain) == 10.0
    assert same.epochs_within(1.0, plain) == 340  # (0.95 * 3,600 - 20) / 10
    assert same.epochs_within(0.001, plain) == 1
    assert same.epochs_within(1000.0, plain) == 1000


def test_what_does_not_fit_is_taken_in_pieces(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 16 take 16 + 160 MiB (see ``made_up``): 100 MiB hold them in four pieces."""
    monkeypatch.setattr(memory_check, "estimate_memory", made_up)
    monkeypatch.setattr(memory_check, "memory_bound", lambda *_, **__: None)
    monkeypatch.setattr(builtins, "open", pretended_open(free_memory_files(100 << 20)))
    console = Console(file=io.StringIO(), width=200)
    config = settled(Wishes(), index, CPU, console)
    assert (config.data.batch_size, config.optimizer.accumulate) == (16, 4)
    assert "  pieces        4 of a step, one after the other: the whole does not" in shown(console)
    given = Wishes(settings={"optimizer": {"accumulate": 2}})
    assert settled(given, index, CPU, console).optimizer.accumulate == 2
    monkeypatch.setattr(builtins, "open", pretended_open(free_memory_files(10 << 20)))
    assert settled(Wishes(), index, CPU, console).optimizer.accumulate == 1  # refused by the check


def test_8_gpus_of_16_gb_and_a_million_images(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 images of a rank take 128 + 1,280 MiB there; with 1 GB free, only in two pieces."""
    monkeypatch.setattr(memory_check, "estimate_memory", _of_a_rank)
    monkeypatch.setattr(memory_check, "memory_bound", lambda *_, **__: None)
    monkeypatch.setattr(settle, "data_facts", lambda _: DataFacts(images=1_281_167, side=375))
    monkeypatch.setattr(settle, "resolve_precision", lambda *_: "bf16")
    monkeypatch.setattr(settle, "world_size", lambda: 8)
    for free, pieces in ((16 << 30, 1), (1 << 30, 2)):
        check = MemoryCheck(
            n_ids=1_281_167,
            n_points=1_281_167,
            pixels=1.4e5,
            world=8,
            precision="bf16",
            device=torch.device("cuda"),
            free=FreeMemory(size=free, of="GPU 0"),
        )
        monkeypatch.setattr(MemoryCheck, "here", lambda *_, check=check: check)
        console = Console(file=io.StringIO(), width=200)
        config = settled(Wishes(), index, torch.device("cuda"), console)
        assert (config.preset, config.optimizer.accumulate) == ("imagenet-2view", pieces)
        assert "1,281,167 images of 375 pixels, in colour; 8 GPUs" in shown(console)


def _of_a_rank(config: Config, *_: Any, **__: Any) -> Any:
    return made_up(config.changed(data={"batch_size": config.data.batch_size // 8}))


SMALL: dict[str, Any] = {
    "model": {"depth": 10, "width": 8, "projector_hidden": 16, "dim": 8, "expand": 0},
    "data": {"loader": "pil"},
    "machine": {"device": "cpu", "threads": 1},
}


def metrics(run: Path) -> list[dict[str, Any]]:
    """What was learned in each epoch."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kept = ("epoch", "loss", "heads", "effective_rank", "projected_rank")
    return [{name: json.loads(line)[name] for name in kept} for line in lines]


@pytest.mark.slow
def test_a_run_by_time_is_that_of_its_file_and_can_go_on(
    stripes: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr("coke.tools.training.speed._SECONDS", 0.0)
    monkeypatch.setattr("coke.tools.training.speed.MOST_EPOCHS", 2)
    first = train(Wishes(settings=SMALL, hours=1.0), stripes, tmp_path / "a", console=console)
    assert first.epoch == 2
    told = shown(console)
    assert "epochs        2: 120 images in all, 1 hours at the speed of the first" in told
    assert "An epoch takes about " in told and "not even one" not in told
    file = tmp_path / "a" / "config.toml"
    assert load_toml(file)["optimizer"]["epochs"] == 2
    again = resolve_config(None, file, None, {})
    assert isinstance(again, Wishes)
    train(again, stripes, tmp_path / "b", console=quiet)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert file.read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()
    with pytest.raises(ValueError, match="goes on with the settings in its config.toml"):
        train(again, stripes, tmp_path / "a", resume=True, console=quiet)
    with pytest.raises(ValueError, match="exists and is not empty"):
        train(again, stripes, tmp_path / "a", console=quiet)
