"""``coke bench-epoch`` measures every stage, and relates loader, step and training."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from coke.cli import app
from coke.config.config import Config
from coke.tools.bench.bench_epoch import bench_epoch
from coke.tools.bench.coke_step import STEP_STAGES


@pytest.mark.slow
def test_reports_the_share_of_the_slower_part(stripes: Path, tiny: Config, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    bench = bench_epoch(
        tiny,
        stripes,
        seconds=0.02,
        rounds=2,
        gpus=8,
        json_file=tmp_path / "bench.json",
        html_file=tmp_path / "bench.html",
        console=console,
    )
    for rate in (bench.loader, bench.step, bench.both):
        assert 0 < rate.low <= rate.median <= rate.high
    slower = min(bench.loader.median, bench.step.median)
    assert bench.share_of_limit == pytest.approx(bench.both.median / slower)
    assert bench.share_of_ceiling == pytest.approx(bench.both.median / bench.step.median)
    assert getattr(bench, bench.limited_by).median == slower
    stages = {stage.name: stage for stage in bench.stages}
    for name in STEP_STAGES:
        assert stages[name].alone is not None and stages[name].together is not None
    assert stages["wait for the loader"].alone is None
    assert stages["step"].alone is not None and stages["step"].together is not None
    for setting in ("accumulate", "channels last", "compile", "checkpoint activations"):
        assert setting in bench.settings
    longest = stages[bench.limiting_stage]
    assert longest.part == bench.limited_by
    for steps in bench.timeline:
        assert [span.stage for span in steps] == ["wait for the loader", "copy", *STEP_STAGES]
    assert bench.projection.minutes == pytest.approx(1_281_167 / (8 * bench.both.median) / 60)
    assert bench.memory.of == "process"
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("loader alone", "step on synthetic data", "both", "18.3", "20.8", "11.1", "8.4"):
        assert word in shown
    saved = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert saved["both"]["median"] == bench.both.median
    assert (tmp_path / "bench.html").read_text(encoding="utf-8").count(
        'Plotly.newPlot("chart-'
    ) == 2


def test_a_loader_whose_stages_are_one_is_named_as_a_whole(stripes: Path, tiny: Config) -> None:
    from coke.tools.bench.measurement import longest_stage
    from coke.tools.bench.result import Stage
    from coke.tools.bench.timing import Spread

    def stage(name: str, part: str, milliseconds: float) -> Stage:
        return Stage(name=name, part=part, alone=Spread.of([milliseconds]), together=None)

    of_step = [stage(name, "step", ms) for name, ms in (("forward", 9), ("backward", 8))]
    of_step.append(stage("step", "step", 17))
    whole = [stage("bytes by id", "loader", 1), stage("loader", "loader", 5)]
    assert longest_stage((*whole, *of_step), "loader") == "loader"
    apart = [*whole, stage("decode", "loader", 2), stage("augment", "loader", 3)]
    assert longest_stage((*apart, *of_step), "loader") == "augment"
    assert longest_stage((*apart, *of_step), "step") == "forward"


def test_refuses_what_does_not_fit_before_it_works(
    stripes: Path,
    tiny: Config,
    quiet: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measures(*_: object) -> None:
        raise AssertionError("a measurement began")

    monkeypatch.setattr("coke.tools.bench.bench_epoch.Measurement", measures)
    with pytest.raises(ValueError, match=r"batch_size is 61, but .* has 60 images"):
        bench_epoch(tiny.changed(data={"batch_size": 61}), stripes, console=quiet)
    with pytest.raises(ValueError, match="seconds is 0"):
        bench_epoch(tiny, stripes, seconds=0, console=quiet)
    with pytest.raises(ValueError, match="gpus is 0"):
        bench_epoch(tiny, stripes, gpus=0, console=quiet)
    with pytest.raises(ValueError, match="'16 apples' is no size"):
        bench_epoch(tiny, stripes, memory_budget="16 apples", console=quiet)
    with pytest.raises(ValueError, match=r"nowhere/page.html cannot be written"):
        bench_epoch(tiny, stripes, html_file=Path("nowhere/page.html"), console=quiet)
    with pytest.raises(ValueError, match=rf"--json {tmp_path} is a folder; name a file in it"):
        bench_epoch(tiny, stripes, json_file=tmp_path, console=quiet)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path or mode != os.W_OK)
    with pytest.raises(ValueError, match=r"--html .*new.html cannot be written: this user may not"):
        bench_epoch(tiny, stripes, html_file=tmp_path / "new.html", console=quiet)


def test_views_are_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Config] = []
    monkeypatch.setattr(
        "coke.tools.bench.bench_epoch.bench_epoch", lambda config, *_, **__: given.append(config)
    )
    result = CliRunner().invoke(app, ["bench-epoch", "data", "--preset", "demo", "--views", "2"])
    assert result.exit_code == 0, result.output
    assert given[0].data.views == 2


def test_peers_in_pieces_are_refused(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate is 2, but --peers compares"):
        bench_epoch(tiny.changed(optimizer={"accumulate": 2}), tmp_path, peers=True)
