"""Two short runs give the metrics that were stored when the loop was last written anew."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from coke.tools.datasets.ingest import ingest

GOLDEN = Path(__file__).parents[2] / "golden" / "short_runs.json"
STORED = json.loads(GOLDEN.read_text(encoding="utf-8"))
#: One thread, and the instructions that every x86-64 has: the same bits on all of them.
SAME_BITS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
OPTIONS = (
    "--epochs 2 --batch-size 64 --device cpu --seed 3 --loader pil --set machine.precision=fp32 "
    "--set machine.threads=1 --set data.start_size=0 --set data.view.size=16 "
    "--set data.second_view.size=16 --set model.width=8 --set model.expand=32 "
    "--set model.projector_hidden=32 --set model.dim=16 --set clustering.n_clusters=[12,20] "
    "--set clustering.min_ratio=1 --set loss.instance=0"
)
PRESETS = {"one view": "cifar10", "two views": "cifar10-2view"}
#: Of a machine and a moment, not of the run.
TIMES = ("images_per_second", "data_wait", "seconds", "peak_memory")
#: Of a decomposition, whose last bits are a library's. Features have 32 and 16 dimensions.
RANKS = {"effective_rank": 32, "projected_rank": 16}


def draw_waves(folder: Path) -> None:
    """512 JPEGs of 20 x 20 pixels: waves of 8 directions, with noise; a folder for each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:20, 0:20]
    for i in range(512):
        angle, pace = i % 8 * np.pi / 8, 0.5 + 0.1 * (i % 8)
        plane = 128 + 90 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * pace)
        pixels = plane[..., None] + rng.integers(-40, 40, (20, 20, 3))
        place = folder / str(i % 8)
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(place / f"{i:03d}.jpg", quality=90)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("waves")
    draw_waves(root / "src")
    ingest(root / "src", root / "data", workers=1, console=Console(quiet=True))
    return root / "data"


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64")
    or torch.__version__.split("+")[0] != STORED["torch"],
    reason=f"the metrics were stored on an x86-64 with torch {STORED['torch']}",
)
@pytest.mark.parametrize("run", list(PRESETS))
def test_a_short_run_gives_the_stored_metrics(waves: Path, tmp_path: Path, run: str) -> None:
    command = [sys.executable, "-m", "coke", "train", str(waves), "--preset", PRESETS[run]]
    subprocess.run(
        [*command, *OPTIONS.split(), "--out", str(tmp_path / "run")],
        check=True,
        capture_output=True,
        env={**os.environ, **SAME_BITS, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    for record in found:
        for name in TIMES:
            assert record.pop(name) >= 0
        assert record.pop("linear_probe") is None, "no probe was asked for"
        for name, dim in RANKS.items():
            assert 1 < record.pop(name) < dim
    assert found == STORED["runs"][run]
