"""``coke bench-epoch``: how long an ImageNet epoch takes on this machine, and what limits it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from coke.clustering import Clustering
from coke.config import Config
from coke.model.coke_model import build_model
from coke.model.optimizer import build_optimizer
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.index import ImageIndex, find_split
from coke.pipeline.loader import Batch, build_loader
from coke.tools.train_step import train_step

IMAGENET_IMAGES = 1_281_167
#: Minutes per ImageNet epoch on 8 GPUs with 16 GB each (paper, Table 6).
PAPER_MINUTES = {"MoCo-v2": 18.3, "SwAV": 20.8, "CoKe": 11.1, "CoKe+ (mixed precision)": 8.4}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Images per second over the rounds: the median, and the slowest and fastest round."""

    median: float
    low: float
    high: float

    @property
    def imagenet_minutes(self) -> float:
        return IMAGENET_IMAGES / self.median / 60


@dataclass(frozen=True, kw_only=True)
class EpochBench:
    """Loader alone, step alone on synthetic data, both together; and the share reached."""

    loader: Rate
    step: Rate
    both: Rate
    limited_by: str
    share_of_limit: float


def bench_epoch(
    config: Config,
    data: str | Path,
    *,
    seconds: float = 10.0,
    rounds: int = 3,
    console: Console | None = None,
) -> EpochBench:
    """Times the loader alone, the training step alone, and training, in turns, in one run.

    The step includes clustering with a label store of ImageNet's size. Each round times the three
    one after the other, so that a machine whose speed drifts drifts for all of them.

    Args:
        config: what to train with; see the presets.
        data: a data set; a small one is read again and again.
        seconds: how long each of the three is timed in each round, after three batches of warm-up.

    Raises:
        ValueError: settings or data do not fit.
    """
    if seconds <= 0 or rounds < 1:
        raise ValueError(f"seconds is {seconds} and rounds {rounds}; both must be positive")
    console = console or Console()
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.cache_dir or None)
    if len(index) < config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size}, but {index.folder} has {len(index)} images: "
            "give a smaller --batch-size"
        )
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    loader = build_loader(
        index,
        [config.view],
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        window=config.window,
        cache_gb=config.cache_gb,
        drop_ragged=True,
        device=str(device),
        threads=config.threads or None,
        backend=config.loader,
    )
    step = _training_step(config, device, precision)
    size = config.view.size
    synthetic = torch.randn(config.batch_size, 3, size, size, device=device)
    synthetic = synthetic.contiguous(memory_format=torch.channels_last)
    ids = torch.arange(config.batch_size, device=device)

    loaded, stepped, trained = [], [], []
    stream = loader.epochs()
    with console.status("timing") as status:
        for r in range(1, rounds + 1):
            status.update(f"round {r} of {rounds}: loader alone")
            loaded.append(_rate(lambda: _load(stream), seconds, device))
            status.update(f"round {r} of {rounds}: step on synthetic data")
            stepped.append(_rate(lambda: step(synthetic, ids), seconds, device))
            status.update(f"round {r} of {rounds}: both")
            trained.append(_rate(lambda: _train(stream, step, device), seconds, device))
    loader_rate, step_rate, both = _summary(loaded), _summary(stepped), _summary(trained)
    limit = min(loader_rate.median, step_rate.median)
    bench = EpochBench(
        loader=loader_rate,
        step=step_rate,
        both=both,
        limited_by="loader" if loader_rate.median < step_rate.median else "step",
        share_of_limit=both.median / limit,
    )
    _show(bench, config, device, precision, console)
    return bench


def _training_step(
    config: Config, device: torch.device, precision: str
) -> Callable[[Tensor, Tensor], int]:
    """One discrimination + clustering step of ``coke train``, on ImageNet's number of ids."""
    model = build_model(config.model, config.seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = build_optimizer(model, config.optimizer)
    clustering = Clustering(
        n_ids=IMAGENET_IMAGES, dim=config.model.dim, device=device, **asdict(config.clustering)
    )
    every_id = torch.arange(IMAGENET_IMAGES, device=device)
    labels_HN = torch.stack([every_id % k for k in config.clustering.n_clusters])
    clustering.label_store.write(every_id, labels_HN, epoch=0)

    def step(images: Tensor, ids: Tensor) -> int:
        targets = clustering.targets(ids)
        features_BD, _ = train_step(
            model, optimizer, [images], targets, clustering, config, precision
        )
        clustering.step(features_BD, ids)
        return len(ids)

    return step


def _load(stream: Iterator[Batch]) -> int:
    return len(next(stream).ids)


def _train(
    stream: Iterator[Batch], step: Callable[[Tensor, Tensor], int], device: torch.device
) -> int:
    batch = next(stream)
    return step(batch.views[0].to(device, non_blocking=True), batch.ids.to(device))


def _rate(work: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Images per second of ``work``, repeated for a while.

    Three calls before are not counted: warm-up, and the batches a loader's queue holds ready.
    """
    for _ in range(3):
        work()
    _finish(device)
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += work()
    _finish(device)
    return images / (time.perf_counter() - started)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(rates: list[float]) -> Rate:
    return Rate(median=statistics.median(rates), low=min(rates), high=max(rates))


def _show(
    bench: EpochBench, config: Config, device: torch.device, precision: str, console: Console
) -> None:
    network = f"ResNet-{config.model.depth}, width {config.model.width}"
    table = Table(
        title=f"one view, {config.view.size} px, {network}, batch {config.batch_size}, "
        f"{precision} on {device}"
    )
    for name in ("", "img/s", "range"):
        table.add_column(name, justify="right" if name else "left")
    table.add_column("minutes per ImageNet epoch", justify="right")
    for name, rate in (
        ("loader alone", bench.loader),
        ("step on synthetic data", bench.step),
        ("training: both", bench.both),
    ):
        table.add_row(
            name,
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f}-{rate.high:,.0f}",
            f"{rate.imagenet_minutes:,.1f}",
        )
    table.add_section()
    for name, minutes in PAPER_MINUTES.items():
        per_second = IMAGENET_IMAGES / minutes / 60
        table.add_row(f"paper, 8 GPUs: {name}", f"{per_second:,.0f}", "", f"{minutes:.1f}")
    console.print(table)
    console.print(
        f"limited by the {bench.limited_by}; training reaches {bench.share_of_limit:.0%} of it "
        f"({IMAGENET_IMAGES:,} images per epoch, projected from this data set)",
        highlight=False,
    )
