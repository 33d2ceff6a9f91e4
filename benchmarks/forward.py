"""Images per second of features alone (``coke embed``) beside those of a training step.

    COKE_TEST_DATA=FOLDER python benchmarks/forward.py [--rounds 5] [--only 32] [--save]

Reads ``cifar10.tar.gz`` and ``imagenet-sample.tar`` from the folder, and measures in turns within
one run, each with its loader, on the CPU with all cores:

- 32 px, CIFAR-10: the preset's ResNet-8 of width 16, and a ResNet-18 of width 64;
- 224 px, the ImageNet sample: the ResNet-50 of ``imagenet-1view``.

For each of them:

- training: steps of the preset at this size (one view, its augmentation, its batch; 16 images at
  224 px), from the loader to the labels that are written;
- embed: what ``coke embed`` does with a batch, from the loader to features on the host;
- embed, plain: the same network in evaluation mode, batches of 256 (16 at 224 px) one after the
  other, every layer split over torch's threads. This is what it did before.

Reports medians over the rounds, and their ratios to training. CPU time is that of all threads of
the process, by image: other programs on the machine distort it less. A thread that waits for
others at the end of a layer spends it, too.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from coke.config.config import Config
from coke.config.presets import presets
from coke.model.inference import Inference, batch_for
from coke.model.precision import inference_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.one_ahead import one_ahead
from coke.tools.evaluation.representations import evaluation_loader
from coke.tools.training.learner import Learner, Place

CPU = torch.device("cpu")
PAUSE = 0.5  # seconds between two looks whether the measurement before has left work behind
QUEUED = 4  # batches that may lie ready: they are not counted
TRAINING, EMBED, PLAIN = "training", "embed", "embed, plain"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: a network at a size, on a data set."""

    title: str
    config: Config
    plain_batch: int


def cases() -> dict[int, list[Case]]:
    """By side in pixels."""
    view = replace(presets["cifar10"].data.view, size=32, evaluation_size=32)
    small = presets["cifar10"].changed(data={"view": view, "second_view": view, "start_size": 0})
    wide = small.changed(model={"depth": 18, "width": 64, "expand": 0})
    large = presets["imagenet-1view"].changed(
        data={"batch_size": 16},
        clustering={"n_clusters": (25,)},  # the sample has 500 images
    )
    return {
        32: [
            Case(title="ResNet-8, width 16, 32 px", config=small, plain_batch=256),
            Case(title="ResNet-18, width 64, 32 px", config=wide, plain_batch=256),
        ],
        224: [Case(title="ResNet-50, 224 px", config=large, plain_batch=16)],
    }


def training(learner: Learner, config: Config, index: ImageIndex) -> Iterator[int]:
    """Endless steps; yields the images of each."""
    view = config.data.view
    loader = build_loader(index, [view], batch_size=config.data.batch_size, drop_ragged=True)
    steps = loader.steps_per_epoch
    for number, batch in zip(count(), loader.epochs(), strict=False):
        batch = replace(batch, sizes=(len(batch.ids),))
        place = Place(epoch=1 + number // steps, step=number % steps, steps=steps)
        if number < steps and number < 2:  # centers from a little of the scan
            learner.scan(batch, replace(place, epoch=0))
            if number == 1:
                learner.end_epoch()
        learner.step(batch, place)
        yield len(batch.ids)


def embedding(learner: Learner, config: Config, index: ImageIndex) -> Iterator[int]:
    """Endless batches, as ``coke embed`` does them."""
    precision = inference_precision(config.machine.precision, CPU)
    represent = Inference(learner.model.backbone, CPU, precision)
    view = config.data.view.evaluation()
    loader = evaluation_loader(index, config, view, batch_for(view.size, CPU), CPU)
    for batch, features_BD in one_ahead(lambda b: represent(b.views[0]), loader.epochs()):
        assert len(features_BD) == len(batch.ids)
        yield len(batch.ids)


def plain(learner: Learner, config: Config, index: ImageIndex, size: int) -> Iterator[int]:
    """Endless batches of the network as it is, one after the other."""
    network = learner.model.backbone
    loader = evaluation_loader(index, config, config.data.view.evaluation(), size, CPU)
    for batch in loader.epochs():
        network.eval()
        with torch.no_grad():
            network(batch.views[0]).float()
        network.train()
        yield len(batch.ids)


def measure(batches: Iterator[int], seconds: float) -> tuple[float, float]:
    """Images per second, and CPU milliseconds of the process per image."""
    settle()
    for _ in range(QUEUED):
        next(batches)
    wall, cpu, images = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        images += next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return images / wall, 1000 * cpu / images


def settle() -> None:
    """Waits until batches that were begun ahead are done: until the process is idle."""
    busy = 1.0
    while busy > 0.05:
        before = time.process_time()
        time.sleep(PAUSE)
        busy = (time.process_time() - before) / PAUSE


def compare(case: Case, index: ImageIndex, options: argparse.Namespace, console: Console) -> None:
    """Measures a case in turns and prints its table."""
    config, live = case.config, index.n_live
    learner = Learner.build(config, n_ids=len(index), n_points=live, device=CPU)
    streams: dict[str, Callable[[], Iterator[int]]] = {
        TRAINING: lambda: training(learner, config, index),
        EMBED: lambda: embedding(learner, config, index),
        PLAIN: lambda: plain(learner, config, index, case.plain_batch),
    }
    running = {name: make() for name, make in streams.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for _ in range(options.rounds):
        for name, stream in running.items():
            found[name].append(measure(stream, options.seconds))
    table = Table(title=f"{case.title}, {learner.precision} in training")
    for column in ("", "img/s (median)", "range", "/ training", "CPU ms/img", "training / this"):
        table.add_column(column, justify="right" if column else "left")
    rates = {name: statistics.median(rate for rate, _ in values) for name, values in found.items()}
    costs = {name: statistics.median(cost for _, cost in values) for name, values in found.items()}
    for name, values in found.items():
        table.add_row(
            name,
            f"{rates[name]:,.1f}",
            f"{min(values)[0]:,.1f}-{max(values)[0]:,.1f}",
            f"{rates[name] / rates[TRAINING]:.2f}",
            f"{costs[name]:.3f}",
            f"{costs[TRAINING] / costs[name]:.2f}",
        )
    console.print(table)


def processor() -> str:
    """Name of the CPU, and its cores that this process may use."""
    name = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--only", type=int, choices=(32, 224), help="size in pixels")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder of the sample archives")
    console = Console(record=True, width=100)
    busy = os.getloadavg()[0]
    console.print(f"{processor()}, {date.today()}, torch {torch.__version__}, load {busy:.1f}")
    archives = {32: "cifar10.tar.gz", 224: "imagenet-sample.tar"}
    for size, measured in cases().items():
        if options.only not in (None, size):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            source, out = Path(scratch) / "images", Path(scratch) / "data"
            with tarfile.open(Path(data) / archives[size]) as tar:
                tar.extractall(source, filter="data")
            ingest(source, out, console=Console(quiet=True))
            index = ImageIndex(out / "train" if (out / "train").exists() else out)
            for case in measured:
                compare(case, index, options, console)
    if options.save:
        path = Path(__file__).parent / "results" / f"forward-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
