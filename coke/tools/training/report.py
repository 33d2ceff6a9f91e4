"""What a training run shows and records: progress, one line per epoch, metrics, warnings."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.markup import escape
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
from coke.config.config import Config
from coke.distributed.process_group import is_main, world_size
from coke.files.byte_size import parse_bytes, show_bytes
from coke.pipeline.loading.loader import Batch
from coke.tools.runs.interruption import RunStopped
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.memory_estimate import peak_memory
from coke.tools.training.metric_sinks import metric_sinks

# Between two looks at the loss, on every rank: each makes a GPU finish what it has queued
_REFRESH_S = 0.5
COLLAPSED_SHARE = 0.5
LOSS_AT_CHANCE = 0.98


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of ``metrics.jsonl``. ``loss`` is None for the initialisation scan (epoch 0).

    ``loss_over_chance`` is the loss divided by ln K (mean over heads): 1 means nothing is learned.
    ``left_out`` counts the images of a ragged last batch that was left out: they keep their labels.
    ``peak_memory`` is in bytes, so far: of torch's tensors on a GPU, of the process on a CPU.
    ``skipped_steps`` were not finite and moved nothing. ``probe`` is the k-NN top-1 in percent,
    None where the epoch was not probed.
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
    peak_memory: int = 0
    skipped_steps: int = 0
    probe: float | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """The record that a line of ``metrics.jsonl`` holds."""
        return cls(**{**line, "heads": [HeadReport(**head) for head in line["heads"]]})


class EpochMeter:
    """Counts images, seconds, waiting and loss of one epoch.

    Args:
        left_out: images of the epoch that no batch has.
        state: :meth:`state` of the same epoch, where it was interrupted.
    """

    def __init__(
        self,
        epoch: int,
        progress: Progress,
        tasks: tuple[TaskID, TaskID],
        device: torch.device,
        left_out: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.epoch = epoch
        self.left_out = left_out
        self.images = 0
        self.skipped = 0
        self._progress = progress
        self.task, self._whole = tasks
        self._device = device
        # Sum over images of their loss, and how many those are; on the device.
        self._losses_2 = torch.zeros(2, dtype=torch.float64, device=device)
        self._started = time.perf_counter()
        self._waited = 0.0
        self._shown = 0.0
        if state is not None:
            self.images, self.skipped = int(state["images"]), int(state["skipped"])
            self._losses_2.copy_(_losses_of(state))
            self._started -= float(state["seconds"])
            self._waited = float(state["waited"])

    def state(self) -> dict[str, Any]:
        """What it has counted, for a checkpoint within the epoch."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "losses": self._losses_2,
            "seconds": self.seconds,
            "waited": self._waited,
        }

    def timing_data(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes batches through and notes how long each was waited for."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def update(self, n_images: int, loss: Tensor | None, finite: Tensor) -> None:
        """Counts a step of so many images and its loss (), which counts where it is finite."""
        self.images += n_images
        if loss is not None:
            counted = torch.stack([loss, torch.ones_like(loss)]).double() * n_images
            self._losses_2 += torch.where(finite, counted, 0.0)
        self._progress.advance(self.task)
        self._progress.advance(self._whole)
        now = time.perf_counter()
        if now - self._shown > _REFRESH_S:
            self._shown = now
            self._progress.update(self.task, status=self._status())

    def _status(self) -> str:
        shown = "" if (mean := self.mean_loss()) is None else f"loss {mean:.3f}  "
        shown += f"{self.images / self.seconds:,.0f} img/s  data wait {self.data_wait:.0%}"
        if self._device.type == "cpu":
            return shown
        return f"{shown}  {show_bytes(peak_memory(self._device))}"

    def mean_loss(self) -> float | None:
        total, images = self._losses_2.tolist()
        return total / images if images else None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def data_wait(self) -> float:
        return self._waited / max(self.seconds, 1e-9)


def _losses_of(state: Mapping[str, Any]) -> Tensor:
    if "losses" in state:
        return torch.as_tensor(state["losses"])
    total = state["loss_sum"]  # of a version that kept sum and images apart
    return torch.tensor([0.0 if total is None else float(total), state["loss_images"]])


class TrainReporter:
    """Context manager around the epochs of a run."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        console: Console,
        precision: str,
        device: torch.device,
        first_epoch: int = 0,
        wandb: str | None = None,
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
        self._whole: TaskID | None = None
        self._first_epoch = first_epoch
        self._records = is_main()
        self._sinks = (
            metric_sinks(config, run, first_epoch, wandb, console) if self._records else []
        )
        console.print(
            f"training [bold]{config.preset}[/] on {device} in {precision}: "
            f"{config.optimizer.epochs} epochs after the initialisation scan, "
            f"batch {config.data.batch_size}{_sharing(config)}, "
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
        for sink in self._sinks:
            sink.close(failed=kind is not None and kind is not RunStopped)
        if error is None:
            where = "this process" if self._device.type == "cpu" else "torch on the GPU"
            peak, budget = peak_memory(self._device), self._config.machine.memory_budget
            self._console.print(f"peak memory of {where}: {show_bytes(peak)}", highlight=False)
            if budget and peak > parse_bytes(budget):
                self.warn(f"the peak is above the memory budget of {budget}: the estimate was low")

    def start_epoch(
        self,
        epoch: int,
        steps: int,
        *,
        left_out: int = 0,
        done: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> EpochMeter:
        """A meter for an epoch, of which ``done`` steps were taken and counted in ``state``."""
        name = "scan" if epoch == 0 else f"epoch {epoch}/{self._config.optimizer.epochs}"
        task = self._progress.add_task(name, total=steps, completed=done, status="")
        if self._whole is None:  # counts from here: its remaining time goes by this machine's pace
            left = (self._config.optimizer.epochs + 1 - self._first_epoch) * steps - done
            self._whole = self._progress.add_task("all epochs", total=left, status="")
        tasks = (task, self._whole)
        return EpochMeter(epoch, self._progress, tasks, self._device, left_out, state)

    def skipped(self, meter: EpochMeter, told: Sequence[str]) -> None:
        """Counts steps that moved nothing, and warns of each."""
        meter.skipped += len(told)
        for warning in told:
            self.warn(warning)

    def warn(self, warning: str) -> None:
        self._console.print(f"[bold yellow]warning:[/] {escape(warning)}", highlight=False)

    def end_epoch(
        self, meter: EpochMeter, heads: list[HeadReport], lr: float, probe: float | None = None
    ) -> EpochRecord:
        """Shows the epoch's line, records it, and warns of a collapse."""
        loss = meter.mean_loss()
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
            peak_memory=peak_memory(self._device),
            skipped_steps=meter.skipped,
            probe=probe,
        )
        self._progress.remove_task(meter.task)
        self._console.print(epoch_lines(record, self._config.optimizer.epochs), highlight=False)
        if self._records:
            self._run.append_metrics(asdict(record))
        for sink in self._sinks:
            sink.log(record.epoch, scalars(record))
        for warning in collapse_warnings(record, meter.images):
            self.warn(warning)
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
    if record.skipped_steps:
        speed += f"  {record.skipped_steps} steps skipped"
    if record.probe is not None:
        speed += f"  k-NN {record.probe:.2f}"
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
        "train/skipped_steps": float(record.skipped_steps),
        "train/peak_memory": float(record.peak_memory),
    }
    if record.probe is not None:
        found["probe/knn_top1"] = record.probe
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
            "more weight at the start (alpha_warmup)"
        )
    return warnings


def _sharing(config: Config) -> str:
    """How a batch is shared out: nothing to say of one rank that takes it in one piece."""
    ranks = f" on {world_size()} ranks" if world_size() > 1 else ""
    return ranks + (
        f" in {config.optimizer.accumulate} pieces" if config.optimizer.accumulate > 1 else ""
    )
