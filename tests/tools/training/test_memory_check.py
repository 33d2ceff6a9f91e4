"""Whether a run fits: against a budget, or what is free; by hand, with figures made up."""

from __future__ import annotations

import builtins
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from coke.config.config import Config
from coke.config.presets import preset_named
from coke.distributed.free_memory import FreeMemory
from coke.tools.training import memory_check
from coke.tools.training.memory_bound import memory_bound
from coke.tools.training.memory_check import MemoryCheck, check_memory
from coke.tools.training.peak_memory import peak_memory, resident_memory
from coke.tools.training.train import train
from tests.support.made_up_memory import made_up
from tests.support.pretended_machine import free_memory_files, pretended_open

CPU = torch.device("cpu")
MIB, GIB = 1 << 20, 1 << 30


def check(free: int, n: int = 500) -> MemoryCheck:
    return MemoryCheck(
        n_ids=n,
        n_points=n,
        pixels=1024.0,
        world=1,
        precision="fp32",
        device=CPU,
        free=FreeMemory(size=free, of="RAM"),
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "estimate_memory", made_up)
    monkeypatch.setattr(memory_check, "memory_bound", lambda *_, **__: None)


def batch_of(size: int, **sections: Any) -> Config:
    return Config().changed(data={"batch_size": size}, **sections)


def test_what_is_free_decides_and_the_process_is_not_counted_twice(figures: None) -> None:
    config = batch_of(100)  # 1,000 + 100 MiB, beside what the process has
    found = check_memory(check(1223 * MIB), config)  # nine tenths of it: 1,100.7 MiB
    assert found is not None and found.total == 1200 * MIB
    # 10 pieces: 100 + 100 MiB. 11 to 19 pieces do not divide 100.
    message = (
        r"a rank of this run needs about 1.07 GiB, but there are 1.19 GiB free \(RAM\): "
        r"activations 1000 MiB, views 100 MiB\. "
        r"It fits with --accumulate 2 \(600 MiB\) or with --batch-size 50 \(550 MiB\) or with "
        r"--set machine.checkpoint_activations=true \(600 MiB\)\. "
        r"--memory-budget SIZE allows a rank SIZE, whatever is free$"
    )
    with pytest.raises(ValueError, match=message):
        check_memory(check(1222 * MIB), config)
    with pytest.raises(ValueError, match=r"It fits with --accumulate 10 \(200 MiB\)\. --mem"):
        check_memory(check(230 * MIB), config)
    with pytest.raises(ValueError, match=r"Use a smaller --batch-size, more ranks, or smaller vi"):
        check_memory(check(10 * MIB), config)
    assert check_memory(replace(check(10 * MIB), free=None), config) is None


def test_a_budget_stands_in_place_of_what_is_free(figures: None) -> None:
    config = batch_of(100, machine={"memory_budget": "1200MiB"})
    assert check_memory(check(1), config) is not None
    with pytest.raises(ValueError, match=r"about 1.17 GiB, more than the memory budget of 1GiB"):
        check_memory(check(1 << 50), batch_of(100, machine={"memory_budget": "1GiB"}))


def test_a_gpu_counts_whole(figures: None) -> None:
    gpu: dict[str, Any] = {
        "device": torch.device("cuda"),
        "free": FreeMemory(size=1300 * MIB, of="GPU 0"),
    }
    with pytest.raises(ValueError, match=r"about 1.17 GiB, but there are 1.27 GiB free \(GPU 0\)"):
        check_memory(replace(check(0), **gpu), batch_of(100))


def test_a_run_that_goes_on_may_change_the_machine_only(figures: None) -> None:
    with pytest.raises(ValueError, match=r"It fits with --set machine.checkpoint_activations=true"):
        check_memory(check(1000 * MIB), batch_of(100), resumed=True)
    with pytest.raises(ValueError, match=r"Use more ranks, or a machine with more memory"):
        check_memory(check(100 * MIB), batch_of(100), resumed=True)


def test_no_piece_is_left_with_one_image(figures: None) -> None:
    """Of 137 images, pieces of 34 leave the last one with 1, and so do pieces of 17."""
    config = batch_of(102)
    assert check(700 * MIB, n=1000).pieces_that_fit(config) == 2
    assert check(500 * MIB, n=1000).pieces_that_fit(config) == 3
    assert check(500 * MIB, n=137).pieces_that_fit(config) == 17


@pytest.mark.parametrize("name", ["demo", "cifar10-2view"])
def test_small_runs_pass_by_a_bound_that_takes_no_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "estimate_memory", lambda *_, **__: pytest.fail("estimated"))
    assert check_memory(check(2 * GIB, n=50_000), preset_named(name)) is None


@pytest.mark.slow
def test_the_bound_of_a_transformer_is_above_the_estimate(small_vit: None, tiny: Config) -> None:
    """Those of ResNets: test_memory_estimate.py."""
    vit = {"backbone": "vit", "size": "tiny", "patch": 4, "image_size": 16}
    config = tiny.changed(model=vit, optimizer={"name": "adamw"})
    found = check(GIB).estimate(config)
    bound = memory_bound(config, [config.data.view], n_ids=500, pixels=1024.0, world=1)
    assert bound is not None
    assert found.total - found.process <= bound <= 10 * (found.total - found.process)


def test_a_network_of_timm_has_no_bound() -> None:
    config = Config().changed(model={"backbone": "timm:resnet18"})
    assert memory_bound(config, [config.data.view], n_ids=9, pixels=1.0, world=1) is None


def test_a_machine_of_2_gb_refuses_what_took_23(
    stripes: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 500 images at 224 pixels with ResNet-50: refused before the run's folder is
    there."""
    monkeypatch.setattr(builtins, "open", pretended_open(free_memory_files(2 * GIB)))
    monkeypatch.setattr(memory_check, "estimate_memory", made_up)
    config = preset_named("imagenet-1view").changed(
        data={"batch_size": 500, "loader": "pil"},
        clustering={"n_clusters": (5,)},
        machine={"device": "cpu"},
    )
    with pytest.raises(ValueError, match=r"needs about .* but there are 2 GiB free \(RAM\)"):
        train(config, stripes, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_within_its_budget_reports_its_peak(
    stripes: Path, tiny: Config, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(ValueError, match="more than the memory budget of 1MiB"):
        train(
            tiny.changed(machine={"memory_budget": "1MiB"}),
            stripes,
            tmp_path / "run",
            console=console,
        )
    assert not (tmp_path / "run").exists()
    last = train(
        tiny.changed(
            optimizer={"epochs": 1}, data={"loader": "pil"}, machine={"memory_budget": "64GiB"}
        ),
        stripes,
        tmp_path / "run",
        console=console,
    )
    assert resident_memory() / 2 < last.peak_memory <= peak_memory(CPU)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"memory of a rank, estimated: \S+ [MG]iB \(process ", told)
    assert re.search(
        r'"peak_memory": \d{8,}', (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    )


@pytest.mark.slow
def test_the_papers_setting_fits_its_card() -> None:
    """Batch 1,024 on 8 GPUs of 16 GB (App. B.1), in float16 as released."""
    config = replace(preset_named("imagenet-1view"), preset="custom").changed(
        machine={"precision": "fp16"}
    )
    gpus = replace(
        check(16 * GIB, n=1_281_167),
        pixels=400.0 * 350,
        world=8,
        precision="fp16",
        device=torch.device("cuda"),
    )
    found = check_memory(gpus, config)
    assert found is not None and 6 * GIB < found.total < 14.4 * GIB
