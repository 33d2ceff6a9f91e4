"""The memory estimate against what torch's allocator hands out."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from coke.clustering import Clustering
from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.coke_model import build_model
from coke.model.optimizer import build_optimizer
from coke.model.replica import replicate
from coke.tools.training import report as train_report
from coke.tools.training.live_memory import LiveMemory
from coke.tools.training.memory_bound import memory_bound
from coke.tools.training.memory_estimate import (
    MemoryEstimate,
    estimate_memory,
)
from coke.tools.training.step import train_step
from coke.tools.training.train import train

CPU = torch.device("cpu")
ROWS = 16


def estimated(config: Config, world: int = 1) -> MemoryEstimate:
    return estimate_memory(
        config,
        [config.data.view],
        n_ids=1000,
        pixels=1024.0,
        world=world,
        precision="fp32",
        device=CPU,
    )


def allocated(config: Config) -> int:
    """The most that torch's allocator had handed out at once during a step, in bytes."""
    model = build_model(config.model, 0)
    network = replicate(model, CPU, checkpoint=config.machine.checkpoint_activations)
    optimizer = build_optimizer(model, config.optimizer)
    clustering = Clustering(n_ids=64, dim=config.model.dim, n_clusters=config.clustering.n_clusters)
    size = config.data.view.size
    views = [torch.randn(ROWS, 3, size, size).contiguous(memory_format=torch.channels_last)]
    targets = [torch.zeros(ROWS, dtype=torch.int64) for _ in config.clustering.n_clusters]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train_step(network, optimizer, views, targets, clustering, config, "fp32")
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.fixture
def narrow(tiny: Config) -> Config:
    """A ResNet-18 of 32-pixel images whose activations are most of what a step takes."""
    return replace(
        tiny, model=ModelConfig(depth=18, width=16, stem="small", projector_hidden=32, dim=16)
    ).changed(data={"batch_size": ROWS, "view": replace(tiny.data.view, size=32)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0.05),
        ({"machine": {"checkpoint_activations": True}}, 0.05),
        ({"optimizer": {"accumulate": 4}}, 0.2),
    ],
    ids=str,
)
def test_a_step_takes_what_was_estimated(
    narrow: Config, changes: dict[str, Any], tolerance: float
) -> None:
    """Within 5 %; within 20 % where activations are so few that the copies which convolutions make
    of their weights show."""
    config = narrow.changed(**changes)
    found = estimated(config)
    momentum = found.optimizer  # of a first step, it is made when the activations are gone
    expected = max(found.activations + found.gradients, found.gradients + momentum)
    assert allocated(config) == pytest.approx(expected, rel=tolerance)


@pytest.mark.slow
def test_what_saves_memory_in_the_estimate(narrow: Config) -> None:
    whole = estimated(narrow)
    model = build_model(narrow.model, 0)
    parameters = sum(4 * p.numel() for p in model.parameters())
    assert whole.gradients == whole.optimizer == parameters
    assert whole.weights - parameters == sum(b.numel() * b.element_size() for b in model.buffers())
    assert whole.views == 4 * ROWS * 3 * 32 * 32 * 4
    halved = estimated(narrow.changed(optimizer={"accumulate": 2}))
    assert 0.5 * whole.activations <= halved.activations < 0.6 * whole.activations
    assert halved.views == whole.views
    shared = estimated(narrow, world=2)
    assert shared.activations == pytest.approx(whole.activations / 2, rel=0.1)
    assert shared.views == whole.views / 2
    less = estimated(narrow.changed(machine={"checkpoint_activations": True}))
    assert less.activations < 0.7 * whole.activations
    bound = memory_bound(narrow, [narrow.data.view], n_ids=1000, pixels=1024.0, world=1)
    assert bound is not None
    assert whole.total - whole.process <= bound <= 5 * (whole.total - whole.process)


@pytest.mark.slow
def test_label_store_and_averaged_labels_are_counted(narrow: Config) -> None:
    def clustering(n: int, first_stage_epochs: int) -> int:
        settings = replace(narrow.clustering, first_stage_epochs=first_stage_epochs)
        return estimate_memory(
            replace(narrow, clustering=settings),
            [narrow.data.view],
            n_ids=n,
            pixels=0,
            world=1,
            precision="fp32",
            device=CPU,
        ).clustering

    assert clustering(2000, 801) - clustering(1000, 801) == 1000 * 2  # two heads of a byte
    # in the second stage also 5 pairs of a float32 weight and an int16 cluster per head
    assert clustering(2000, 2) - clustering(1000, 2) == 1000 * 2 * (1 + 5 * 6)


def test_fake_tensors_count_as_real_ones_and_take_nothing() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    def work() -> None:
        a = torch.ones(1000)  # 4,000 bytes
        b = a + 1  # 8,000 alive
        b.add_(1)  # in place
        c = b.view(10, 100)  # the same storage
        del a, b
        d = torch.ones(500)  # 6,000
        del c, d

    for mode in (None, FakeTensorMode()):
        with LiveMemory() as live:
            if mode is None:
                work()
            else:
                with mode:
                    work()
        assert (live.peak, live.now) == (8000, 0)


@pytest.mark.slow
def test_a_peak_above_the_budget_is_told(
    tiny: Config, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_report, "peak_memory", lambda _: 3 << 40)
    config = tiny.changed(
        optimizer={"epochs": 1}, data={"loader": "pil"}, machine={"memory_budget": "2TiB"}
    )
    console = Console(file=io.StringIO(), width=200)
    train(config, stripes, tmp_path / "run", console=console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "peak memory of this process: 3 TiB" in told
    assert "warning: the peak is above the memory budget of 2TiB" in told
