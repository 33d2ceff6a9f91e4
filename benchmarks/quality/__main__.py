"""CoKe and what a user would pick instead, on CIFAR-10, as a grid that resumes.

    COKE_TEST_DATA=FOLDER python -m benchmarks.quality [--images 10000] [--epochs 20] [--jobs 2]
        [--seeds 3] [--methods simclr,two-five:3,ratio-0.4]
    python -m benchmarks.quality --time-steps --methods simclr,two-five
    python -m benchmarks.quality --page

Unpacks ``cifar10.tar.gz`` from the folder (class folders of JPEGs, 50,000 + 10,000) and ingests the
first images of each class. Every cell (method, images, epochs, seed) is trained without labels,
on one core, and evaluated on the test images: k-NN and linear. It becomes a file in
benchmarks/results/quality, and is not trained again while the file is there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import as_completed
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.quality.grid import METHODS, Cell
from benchmarks.quality.jobs import pool
from benchmarks.quality.page import with_tables
from benchmarks.quality.record import keep, path_of, records_in
from benchmarks.quality.step_time import step_seconds
from benchmarks.quality.training import ingested, measure
from coke.files.durable import write_json, write_text

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "quality", ROOT / "docs" / "quality.md"
STEPS = "steps.json"


def main() -> None:
    options = _options()
    console = Console(width=110)
    if options.page:
        steps = (
            json.loads((RESULTS / STEPS).read_text(encoding="utf-8"))
            if (RESULTS / STEPS).exists()
            else {}
        )
        page = with_tables(
            PAGE.read_text(encoding="utf-8"),
            records_in(RESULTS),
            steps,
            images=options.images,
            epochs=options.epochs,
        )
        write_text(PAGE, page)
        return
    archive = Path(os.environ.get("COKE_TEST_DATA", "")) / "cifar10.tar.gz"
    if not archive.is_file():
        raise SystemExit("set COKE_TEST_DATA to the folder that holds cifar10.tar.gz")
    data = ingested(archive, options.work / f"cifar10-{options.images}", options.images)
    if options.time_steps:
        torch.set_num_threads(1)
        RESULTS.mkdir(parents=True, exist_ok=True)
        timed = step_seconds(list(options.methods), data, options.images, options.time_steps)
        write_json(RESULTS / STEPS, timed, indent=1)
        console.print(timed, highlight=False)
        return
    _train_all(cells_of(options), data, options, console)


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The cells that have no record, seed by seed, so that an early end leaves whole seeds."""
    cells = [
        Cell(method=method, images=options.images, epochs=options.epochs, seed=seed)
        for seed in range(max(options.methods.values()))
        for method, seeds in options.methods.items()
        if seed < seeds
    ]
    return [cell for cell in cells if not path_of(cell, RESULTS).exists()]


def _train_all(
    cells: list[Cell], data: Path, options: argparse.Namespace, console: Console
) -> None:
    with pool(options.jobs) as workers:
        runs = options.work / "runs"
        trainings = {workers.submit(measure, cell, data, runs): cell for cell in cells}
        for training in as_completed(trainings):
            name = trainings[training].name
            try:
                record = training.result()
            except ValueError as error:  # it diverged; the others go on
                console.print(f"{name}: {error}", highlight=False)
                continue
            keep(record, RESULTS)
            console.print(
                f"{name}: k-NN {record.knn:.2f}, linear {record.linear:.2f}, "
                f"{record.cpu_seconds / 60:.1f} CPU minutes",
                highlight=False,
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=list(METHODS),
        help=f"comma-separated, each with its own :SEEDS or without, of {', '.join(METHODS)}; all "
        "if unset",
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, a core each")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "coke-quality",
        help="folder of data sets, and of runs that are not done: they go on from there",
    )
    parser.add_argument(
        "--time-steps", type=int, default=0, metavar="ROUNDS", help="time steps, train nothing"
    )
    parser.add_argument("--page", action="store_true", help="write docs/quality.md from records")
    options = parser.parse_args()
    seeds = {}
    for named in options.methods:
        name, _, own = named.partition(":")
        if name not in METHODS:
            parser.error(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
        seeds[name] = int(own or options.seeds)
        if seeds[name] < 1:
            parser.error(f"{named!r} asks for {seeds[name]} seeds; give 1 or more")
    cores = len(os.sched_getaffinity(0))
    if not 1 <= options.jobs <= cores:
        parser.error(f"--jobs is {options.jobs}; give 1 to {cores}, a core each")
    options.methods = seeds
    return options


if __name__ == "__main__":
    main()
