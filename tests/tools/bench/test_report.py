"""What is printed and saved."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coke.tools.bench.memory import Memory
from coke.tools.bench.report import conclusions, save_json, show
from coke.tools.bench.result import EpochBench


def shown(bench: EpochBench, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(bench, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_prints_every_stage_and_table_6(bench: EpochBench) -> None:
    text = shown(bench)
    for stage in bench.stages:
        assert stage.label in text
    (whole,) = [line for line in text.splitlines() if line.startswith("│ step, whole")]
    assert " 100 " in whole and " 120 " in whole
    assert "here: ResNet-50" in text and "compile: True" in text
    for figure in ("18.3", "20.8", "11.1", "8.4"):
        assert figure in text
    assert "no bf16 hardware" in text
    (coke,) = [line for line in text.splitlines() if line.startswith("│ CoKe   ")]
    assert "61.0 ±18%" in coke and "122 ±18%" in coke  # (1.25 - 0.9) / 2
    (ratio,) = [line for line in text.splitlines() if "CoKe / MoCo-v2" in line]
    assert ratio.count("0.61") == 3  # alone, in training, the paper's


def test_bars_are_as_long_as_stages(bench: EpochBench) -> None:
    """The step, of 100 ms, has all 10 cells of the bar; eighths of a cell do not count."""
    bars = {}
    for line in shown(bench).splitlines():
        for name in ("forward", "backward", "loader, whole", "step, whole"):
            if f"│ {name} " in line:
                bars[name] = line.count("█")
    assert bars == {"forward": 3, "backward": 7, "loader, whole": 5, "step, whole": 10}


def test_a_terminal_of_80_columns_cuts_nothing(bench: EpochBench) -> None:
    assert "…" not in shown(bench, width=80)


def test_conclusions(bench: EpochBench) -> None:
    lines = conclusions(bench)
    assert "Limited by the step, and there most by: backward." in lines[0]
    assert "80% of it" in lines[1]
    assert "Try --set data.start_size=16: smaller <views>." in lines
    assert any("5.2 minutes, given" in line for line in lines)  # 1,281,167 / (8 * 512) / 60
    assert "Peak of the GPU at batch 64: 3 GiB, which fits 16 GiB." in lines
    assert "Largest batch that fits 16 GiB: 328." in lines
    assert (
        "Best split of the cores: OMP_NUM_THREADS=2 coke train ... --set machine.threads=1" in lines
    )


def test_figures_that_cannot_be_are_not_to_be_trusted(bench: EpochBench) -> None:
    def warned(share: float) -> bool:
        return any("not to be trusted" in ln for ln in conclusions(_at(share, bench)))

    assert warned(1.23) and not warned(1.02)


def _at(share: float, bench: EpochBench) -> EpochBench:
    return replace(bench, share_of_limit=share, share_of_ceiling=share)


def test_cores_that_are_shared_limit(bench: EpochBench) -> None:
    first = conclusions(replace(bench, shared_cores=True))[0]
    assert first.startswith("Limited by the cores, which loader and step share")
    assert "its longest stage: backward" in first and "80% of the step's rate" in first


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (Memory(peak=2**34 + 2**30, of="GPU", budget=2**34, largest_batch=0), "does not fit"),
        (
            Memory(peak=2**30, of="process", budget=2**34, largest_batch=None),
            "--memory-budget has no effect",
        ),
    ],
)
def test_memory(bench: EpochBench, memory: Memory, said: str) -> None:
    assert any(said in line for line in conclusions(replace(bench, memory=memory)))


def test_the_saved_figures_are_those_measured(bench: EpochBench, tmp_path: Path) -> None:
    save_json(bench, tmp_path / "bench.json")
    saved = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert saved["both"] == {"median": 512, "low": 0.9 * 512, "high": 640, "rounds": 3}
    assert saved["stages"][0]["name"] == "decode"
    assert saved["stages"][0]["together"] is None
    assert saved["timeline"][1][2] == {"stage": "backward", "start": 164, "end": 244}
    assert saved["ratios"][0]["alone"] == pytest.approx(0.61)
    assert saved["projection"]["gpus"] == 8
