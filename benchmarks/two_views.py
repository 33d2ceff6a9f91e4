"""What makes two views learn on small data: the weight of the label, and how it moves.

    COKE_TEST_DATA=FOLDER python benchmarks/two_views.py [--epochs 10] [--images 10000] [--seed 0]
        [--forms constant,annealed] [--save]

Takes the first images of every class of ``cifar10.tar.gz`` from the folder and a fifth as many to
test on, trains every form of the target without labels, and evaluates frozen features. Forms of two
views see as many views as the single view, which is trained twice as long.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coke.preset_configs import preset_named
from coke.settings import with_settings
from coke.tools.eval_knn import eval_knn
from coke.tools.eval_linear import eval_linear
from coke.tools.ingest import ingest
from coke.tools.representations import cache_features
from coke.tools.train import train

#: Clusters that hold as many of 10,000 images as the preset's 500 and 1,000 do of 50,000.
HEADS = {"clustering": {"n_clusters": [100, 200]}}
CONSTANT = {"alpha_warmup": 0.0}
FORMS: dict[str, dict[str, Any]] = {
    "single view": {"views": 1},
    "constant": CONSTANT,  # the paper's: alpha 0.2 from the start
    "sharper reference": CONSTANT | {"reference_temperature": 0.1},
    "annealed": {"alpha_warmup": 1.0},
    "annealed in half": {"alpha_warmup": 0.5},
    "annealed, sharper": {"alpha_warmup": 1.0, "reference_temperature": 0.1},
    "labels alone": CONSTANT | {"alpha": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", default=",".join(FORMS), help="as named in the table")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds cifar10.tar.gz")
    console, quiet = Console(record=True, width=120), Console(quiet=True)
    table = Table(
        title=f"CIFAR-10, {options.images:,} images: two views for {options.epochs} epochs, "
        f"one for {2 * options.epochs}; top-1 in percent"
    )
    table.add_column("target")
    for column in ("k-NN", "linear", "loss / ln K: first", "middle", "last"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        unpack(Path(data) / "cifar10.tar.gz", Path(scratch) / "images", options.images)
        folder = Path(scratch) / "dataset"
        ingest(Path(scratch) / "images", folder, console=quiet)
        for form in options.forms.split(","):
            config = with_settings(preset_named("cifar10-2view"), HEADS | FORMS[form])
            epochs = options.epochs * (2 if config.views == 1 else 1)
            run = Path(scratch) / form
            with console.status(form):
                train(replace(config, epochs=epochs, seed=options.seed), folder, run, console=quiet)
                features = cache_features(run, folder, baselines=False, console=quiet)
                knn = eval_knn(run, folder, features=features, console=quiet)
                linear = eval_linear(run, folder, fast=True, features=features, console=quiet)
            records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines()[1:])
            losses = [record["loss_over_chance"] for record in records]
            shown = [losses[i] for i in (0, len(losses) // 2, -1)]
            top1 = [report.rows["CoKe"].top1 for report in (knn, linear)]
            table.add_row(form, *(f"{x:.1f}" for x in top1), *(f"{x:.2f}" for x in shown))
    console.print(table)
    if options.save:
        path = Path(__file__).parent / "results" / f"two-views-{date.today()}.txt"
        path.write_text(console.export_text())


def unpack(archive: Path, out: Path, images: int) -> None:
    """The first ``images`` training images and a fifth as many to test on, classes equal."""
    taken: Counter[str] = Counter()
    limits = {"train": images // 10, "test": images // 50}
    with tarfile.open(archive) as tar:
        for member in tar:
            split, _, rest = member.name.removeprefix("./").partition("/")
            place = f"{split}/{rest.rpartition('/')[0]}"
            if member.isfile() and taken[place] < limits.get(split, 0):
                taken[place] += 1
                tar.extract(member, out, filter="data")


if __name__ == "__main__":
    main()
