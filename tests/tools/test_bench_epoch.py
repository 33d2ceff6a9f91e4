"""``coke bench-epoch`` measures loader, step and both, and relates them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coke.config import Config
from coke.tools.bench_epoch import IMAGENET_IMAGES, Rate, bench_epoch


def test_reports_the_share_of_the_slower_part(stripes: Path, tiny: Config) -> None:
    console = Console(file=io.StringIO(), width=140)
    bench = bench_epoch(tiny, stripes, seconds=0.1, rounds=2, console=console)
    for rate in (bench.loader, bench.step, bench.both):
        assert 0 < rate.low <= rate.median <= rate.high
    slower = min(bench.loader.median, bench.step.median)
    assert bench.share_of_limit == pytest.approx(bench.both.median / slower)
    assert getattr(bench, bench.limited_by).median == slower
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("loader alone", "step on synthetic data", "both", "18.3", "20.8", "11.1", "8.4"):
        assert word in shown


def test_projects_an_imagenet_epoch() -> None:
    rate = Rate(median=2542.0, low=1.0, high=9.0)
    assert IMAGENET_IMAGES == 1_281_167
    assert rate.imagenet_minutes == pytest.approx(8.4, abs=0.005)


def test_refuses_a_batch_larger_than_the_data(stripes: Path, tiny: Config, quiet: Console) -> None:
    with pytest.raises(ValueError, match=r"batch_size is 61, but .* has 60 images"):
        bench_epoch(replace(tiny, batch_size=61), stripes, console=quiet)
    with pytest.raises(ValueError, match="seconds is 0"):
        bench_epoch(tiny, stripes, seconds=0, console=quiet)
