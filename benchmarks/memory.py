"""The memory estimate of `coke train --memory-budget` against the peak of the run that follows.

    COKE_TEST_DATA=FOLDER python benchmarks/memory.py [--images 96] [--device cpu] [--save]

Takes the first images of ``imagenet-sample.tar`` from the folder, and trains one epoch of each
setting in a process of its own. On a CPU, estimate and peak are of the whole process; on a GPU the
peak is that of torch's tensors, and the estimate is shown without what CUDA itself takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tarfile
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from coke.config.config import Config
from coke.config.overrides import with_settings
from coke.config.presets import preset_named
from coke.files.byte_size import show_bytes
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.datasets.ingest import ingest
from coke.tools.training.memory_estimate import estimate_memory, mean_pixels
from coke.tools.training.train import train

#: On top of ``imagenet-1view`` for one epoch; fewer clusters, as there are few images.
BASE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 32,
    "clustering": {"n_clusters": [30, 40, 50], "first_stage_epochs": 100},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ResNet-50, batch 32": {},
    "ResNet-50, batch 32, accumulate 4": {"accumulate": 4},
    "ResNet-50, batch 32, activation checkpointing": {"checkpoint_activations": True},
    "ResNet-50, batch 16, two views": {"batch_size": 16, "views": 2},
    "ResNet-18, batch 32": {"model": {"depth": 18}},
    "ResNet-50, batch 64 of 96 pixels": {"batch_size": 64, "view": {"size": 96}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds imagenet-sample.tar")
    device = resolve_device(options.device)
    console = Console(record=True, width=110)
    table = Table(title=f"Memory of a rank on {device}, torch {torch.__version__}, {date.today()}")
    table.add_column("setting")
    for column in ("estimated", "peak", "estimated / peak"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpack(Path(data) / "imagenet-sample.tar", Path(scratch), options.images)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for number, name in enumerate(SETTINGS):
                with console.status(name):
                    arguments = (name, options.device, folder, Path(scratch) / str(number))
                    estimated, peak = pool.apply(measure, arguments)
                table.add_row(
                    name, show_bytes(estimated), show_bytes(peak), f"{estimated / peak:.2f}"
                )
    console.print(table)
    if options.save:
        path = Path(__file__).parent / "results" / f"memory-{device.type}-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


def config_of(name: str, device: str) -> Config:
    settings = BASE | {"device": device} | SETTINGS[name]
    if "view" in settings:
        settings["second_view"] = settings["view"]
    return with_settings(preset_named("imagenet-1view"), settings)


def measure(name: str, device_name: str, data: Path, run: Path) -> tuple[int, int]:
    """Bytes that were estimated before the run, and that it took at most."""
    config = config_of(name, device_name)
    device = resolve_device(config.machine.device)
    index = ImageIndex(find_split(data, ("train",)))
    estimate = estimate_memory(
        config,
        config.recipes_at(config.optimizer.epochs),
        n_ids=len(index),
        pixels=mean_pixels(index),
        world=1,
        precision=resolve_precision(config.machine.precision, device),
        device=device,
    )
    train(config, data, run, console=Console(quiet=True))
    last = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    estimated = estimate.total if device.type == "cpu" else estimate.total - estimate.process
    return estimated, json.loads(last)["peak_memory"]


def unpack(archive: Path, scratch: Path, images: int) -> Path:
    """A data set of the archive's first images."""
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()][:images]
        tar.extractall(scratch / "images", members=files, filter="data")
    ingest(scratch / "images", scratch / "dataset", console=Console(quiet=True))
    return scratch / "dataset"


if __name__ == "__main__":
    main()
