"""CIFAR-10 from JPEG folders to accuracy by epoch: preset ``cifar10``, shortened.

    COKE_TEST_DATA=FOLDER python benchmarks/cifar10.py [--epochs 40] [--save]

Unpacks ``cifar10.tar.gz`` from the folder (class folders of JPEGs, 50,000 + 10,000), ingests it,
trains without labels, and evaluates frozen features on the 10,000 test images: k-NN and linear
along the way, both beside random initialisation and raw pixels at the end.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
import time
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coke.config.overrides import differences
from coke.config.presets import preset_named, presets
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.linear import eval_linear
from coke.tools.evaluation.representations import cache_features
from coke.tools.training.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=8, help="epochs between two evaluations")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds cifar10.tar.gz")
    config = preset_named("cifar10").changed(
        optimizer={"epochs": options.epochs}, run={"keep_checkpoints": options.epochs + 1}
    )
    console = Console(record=True, width=150)
    quiet = Console(quiet=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder, run = Path(scratch) / "dataset", Path(scratch) / "run"
        with tarfile.open(Path(data) / "cifar10.tar.gz") as tar:
            tar.extractall(Path(scratch) / "images", filter="data")
        ingest(Path(scratch) / "images", folder, console=console)
        started = time.perf_counter()
        train(config, folder, run, console=console)
        minutes = (time.perf_counter() - started) / 60
        curve = Table(title="frozen features by epoch, top-1 in percent")
        for column in ("epoch", "k-NN", "linear"):
            curve.add_column(column, justify="right")
        for epoch in range(0, options.epochs, options.every):
            features = cache_features(run, folder, epoch=epoch, baselines=False, console=quiet)
            knn = eval_knn(run, folder, features=features, console=quiet)
            linear = eval_linear(run, folder, fast=True, features=features, console=quiet)
            knn_top1, linear_top1 = knn.rows["CoKe"].top1, linear.rows["CoKe"].top1
            curve.add_row(str(epoch), f"{knn_top1:.2f}", f"{linear_top1:.2f}")
        features = cache_features(run, folder, console=console)
        knn = eval_knn(run, folder, features=features, console=console)
        linear = eval_linear(run, folder, fast=True, features=features, console=console)
        knn_top1, linear_top1 = knn.rows["CoKe"].top1, linear.rows["CoKe"].top1
        curve.add_row(str(options.epochs), f"{knn_top1:.2f}", f"{linear_top1:.2f}")
    console.print(curve)
    changed = ", ".join(differences(presets["cifar10"], config))
    console.print(
        f"{date.today()}: {minutes:.1f} minutes of training (scan included) on "
        f"{len(os.sched_getaffinity(0))} cores; preset cifar10 but {changed}",
        highlight=False,
    )
    if options.save:
        path = Path(__file__).parent / "results" / f"cifar10-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
