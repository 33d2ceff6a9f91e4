"""What a training run shows and records: progress, one line per epoch, metrics, warnings."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from coke.clustering import HeadReport
from coke.config import Config
from coke.pipeline.loader import Batch
from coke.tools.run_folder import RunFolder

_REFRESH_S = 0.5  # between two looks at the loss: each makes a GPU finish what it has queued
COLLAPSED_SHARE = 0.5
LOSS_AT_CHANCE = 0.98


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of ``metrics.jsonl``. ``loss`` is None for the initialisation scan (epoch 0).

    ``loss_over_chance`` is the loss divided by ln K (mean over heads): 1 means nothing is learned.
    ``left_out`` counts the images of a ragged last batch that was left out: they keep their labels.
    """

    epoch: int
    loss: float | None
    loss_over_chance: float | None
    lr: float
    images_per_second: float
    data_wait: float
    seconds: float
    heads: list[HeadReport]
    left_out: int = 0


class EpochMeter:
    """Counts images, seconds, waiting and loss of one epoch."""

    def __init__(self, epoch: int, progress: Progress, task: TaskID, left_out: int = 0) -> None:
        self.epoch = epoch
        self.left_out = left_out
        self.images = 0
        self._progress = progress
        self.task = task
        self._loss_sum: Tensor | None = None
        self._started = time.perf_counter()
        self._waited = 0.0
        self._shown = 0.0

    def timing_data(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes batches through and notes how long each was waited for."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def update(self, n_images: int, loss: Tensor | None) -> None:
        self.images += n_images
        if loss is not None:
            weighted = loss * n_images
            self._loss_sum = weighted if self._loss_sum is None else self._loss_sum + weighted
        self._progress.advance(self.task)
        now = time.perf_counter()
        if now - self._shown > _REFRESH_S:
            self._shown = now
            shown = "" if (mean := self.mean_loss()) is None else f"loss {mean:.3f}  "
            rate = self.images / (now - self._started)
            self._progress.update(self.task, status=f"{shown}{rate:,.0f} img/s")

    def mean_loss(self) -> float | None:
        return None if self._loss_sum is None else float(self._loss_sum) / self.images

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def data_wait(self) -> float:
        return self._waited / max(self.seconds, 1e-9)


class TrainReporter:
    """Context manager around the epochs of a run."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        console: Console,
        precision: str,
        device: torch.device,
    ) -> None:
        self._config = config
        self._run = run
        self._console = console
        self._device = device
        self._chance = sum(map(math.log, config.clustering.n_clusters)) / len(
            config.clustering.n_clusters
        )
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            transient=True,
        )
        self._tensorboard = _summary_writer(run, console)
        console.print(
            f"training [bold]{config.preset}[/] on {device} in {precision}: {config.epochs} epochs "
            f"after the initialisation scan, batch {config.batch_size}, "
            f"heads {' + '.join(f'{k:,}' for k in config.clustering.n_clusters)} -> {run.path}"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def start_epoch(self, epoch: int, steps: int, *, left_out: int = 0) -> EpochMeter:
        name = "scan" if epoch == 0 else f"epoch {epoch}/{self._config.epochs}"
        task = self._progress.add_task(name, total=steps, status="")
        return EpochMeter(epoch, self._progress, task, left_out)

    def end_epoch(self, meter: EpochMeter, heads: list[HeadReport], lr: float) -> EpochRecord:
        """Shows the epoch's line, records it, and warns of a collapse."""
        loss = meter.mean_loss()
        if loss is not None and not math.isfinite(loss):
            raise ValueError(
                f"the loss of epoch {meter.epoch} is {loss}: training diverged, and this epoch is "
                "not saved. Start again with a lower optimizer.lr, or with --set precision=fp32"
            )
        record = EpochRecord(
            epoch=meter.epoch,
            loss=loss,
            loss_over_chance=None if loss is None else loss / self._chance,
            lr=lr,
            images_per_second=meter.images / meter.seconds,
            data_wait=meter.data_wait,
            seconds=meter.seconds,
            heads=heads,
            left_out=meter.left_out,
        )
        self._progress.remove_task(meter.task)
        self._console.print(epoch_lines(record, self._config.epochs), highlight=False)
        self._run.append_metrics(asdict(record))
        if self._tensorboard is not None:
            for name, value in scalars(record).items():
                self._tensorboard.add_scalar(name, value, record.epoch)
        for warning in collapse_warnings(record, meter.images):
            self._console.print(f"[bold yellow]warning:[/] {warning}", highlight=False)
        return record


def epoch_lines(record: EpochRecord, epochs: int) -> str:
    """The console's lines of one epoch: one for the epoch, one for each head."""
    name = "scan" if record.epoch == 0 else f"epoch {record.epoch}/{epochs}"
    loss = ""
    if record.loss is not None:
        loss = f"loss {record.loss:.3f} ({record.loss_over_chance:.2f} ln K)  "
    speed = f"{record.images_per_second:,.0f} img/s  data wait {record.data_wait:.0%}"
    if record.left_out:
        speed += f"  {record.left_out} images left out"
    heads = [
        f"  K={h.n_clusters:,}: {h.smallest}-{h.largest} images, {h.empty} empty, "
        f"violation {h.violation:.1%}, churn {h.churn:.0%}"
        for h in record.heads
    ]
    return "\n".join([f"{name:<12} {loss}{speed}", *heads])


def scalars(record: EpochRecord) -> dict[str, float]:
    """The record as TensorBoard scalars."""
    found = {
        "train/images_per_second": record.images_per_second,
        "train/data_wait": record.data_wait,
        "train/lr": record.lr,
    }
    if record.loss is not None and record.loss_over_chance is not None:
        found |= {"train/loss": record.loss, "train/loss_over_chance": record.loss_over_chance}
    for j, head in enumerate(record.heads):
        for name in ("smallest", "largest", "empty", "violation", "churn"):
            found[f"head{j}/{name}"] = float(getattr(head, name))
    return found


def collapse_warnings(record: EpochRecord, n_images: int) -> list[str]:
    """What says that the representation is collapsing, each with what to change."""
    warnings = []
    for j, head in enumerate(record.heads):
        if head.largest > COLLAPSED_SHARE * n_images:
            warnings.append(
                f"collapse: one cluster of head {j} (K={head.n_clusters:,}) holds "
                f"{head.largest / n_images:.0%} of the images. Raise clustering.min_ratio, use "
                "clustering.dual_rule=auto, or lower optimizer.lr"
            )
    chance = record.loss_over_chance
    if record.epoch >= 3 and chance is not None and chance > LOSS_AT_CHANCE:
        warnings.append(
            f"the loss is {chance:.2f} of ln K: nothing is learned. Lower temperature, use fewer "
            "clusters (clustering.n_clusters), or change optimizer.lr; with two views, give labels "
            "more weight at the start (alpha_warmup_epochs)"
        )
    return warnings


def _summary_writer(run: RunFolder, console: Console) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        console.print(
            "TensorBoard is not installed (`pip install tensorboard`): metrics go "
            f"to {run.metrics} only"
        )
        return None
    return SummaryWriter(str(run.tensorboard))
