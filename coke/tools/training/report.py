"""The display and the record of a training run: progress, a line per epoch, warnings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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

from coke.clustering import HeadReport
from coke.config.config import Config
from coke.distributed.process_group import is_main, world_size
from coke.files.byte_size import parse_bytes, show_bytes
from coke.tools.evaluation.probe import ProbeResult
from coke.tools.runs.interruption import RunStopped
from coke.tools.runs.record import EpochRecord
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.feature_sample import EffectiveRanks
from coke.tools.training.meter import EpochMeter
from coke.tools.training.metric_sinks import metric_sinks
from coke.tools.training.peak_memory import peak_memory

COLLAPSED_SHARE = 0.5
LOSS_AT_CHANCE = 0.98
#: Features with a lower effective rank nearly all point one way. bfloat16 rounds features that do
#: so exactly to about 1.5.
COLLAPSED_RANK = 2.0


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
        self._warned: set[str] = set()  # in the epoch before
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
        """A meter for an epoch.

        Args:
            steps: of the whole epoch.
            left_out: images of the epoch that are in no batch.
            done: steps that were taken before an interruption.
            state: :meth:`EpochMeter.state` after those steps.
        """
        name = "scan" if epoch == 0 else f"epoch {epoch}/{self._config.optimizer.epochs}"
        task = self._progress.add_task(name, total=steps, completed=done, status="")
        if (
            self._whole is None
        ):  # counts from here: this machine's speed gives the time that is left
            left = (self._config.optimizer.epochs + 1 - self._first_epoch) * steps - done
            self._whole = self._progress.add_task("all epochs", total=left, status="")
        tasks = (task, self._whole)
        return EpochMeter(epoch, self._progress, tasks, self._device, left_out, state)

    def skipped(self, meter: EpochMeter, warnings: Sequence[str]) -> None:
        """Counts steps that moved nothing, and warns of each."""
        meter.skipped += len(warnings)
        for warning in warnings:
            self.warn(warning)

    def warn(self, warning: str) -> None:
        self._console.print(f"[bold yellow]warning:[/] {escape(warning)}", highlight=False)

    def end_epoch(
        self,
        meter: EpochMeter,
        heads: list[HeadReport],
        lr: float,
        ranks: EffectiveRanks,
        probe: ProbeResult,
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
            probe=probe.knn,
            linear_probe=probe.linear,
            effective_rank=ranks.represented,
            projected_rank=ranks.projected,
        )
        self._progress.remove_task(meter.task)
        self._console.print(epoch_lines(record, self._config.optimizer.epochs), highlight=False)
        if self._records:
            self._run.append_metrics(asdict(record))
        for sink in self._sinks:
            sink.log(record.epoch, scalars(record))
        warnings = collapse_warnings(record, meter.images)
        for warning in warnings:
            if kind_of(warning) not in self._warned:
                self.warn(warning)
        self._warned = set(map(kind_of, warnings))
        return record


def kind_of(warning: str) -> str:
    """What a warning is about. The next epoch's is not told again if only its figures differ."""
    return re.sub(r"[\d.,%]+", "", warning)


def epoch_lines(record: EpochRecord, epochs: int) -> str:
    """The console's lines of one epoch: one for the epoch, for features, and for each head."""
    name = "scan" if record.epoch == 0 else f"epoch {record.epoch}/{epochs}"
    loss = ""
    if record.loss is not None:
        loss = f"loss {record.loss:.3f} ({record.loss_over_chance:.2f} ln K)  "
    speed = f"{record.images_per_second:,.0f} img/s  data wait {record.data_wait:.0%}"
    if record.left_out:
        speed += f"  {record.left_out} images left out"
    if record.skipped_steps:
        speed += f"  {record.skipped_steps} steps skipped"
    heads = [
        f"  K={h.n_clusters:,}: {h.smallest}-{h.largest} images, {h.empty} empty, "
        f"violation {h.violation:.1%}, churn {h.churn:.0%}"
        for h in record.heads
    ]
    features = _features_line(record)
    return "\n".join([f"{name:<12} {loss}{speed}", *features, *heads])


def _features_line(record: EpochRecord) -> list[str]:
    """Effective rank and probe, in a line of their own where there are any."""
    shown = []
    if record.effective_rank is not None:
        shown.append(f"effective rank {record.effective_rank:.1f}")
    if record.projected_rank is not None:
        shown.append(f"projected {record.projected_rank:.1f}")
    if record.probe is not None:
        shown.append(f"k-NN {record.probe:.2f}")
    if record.linear_probe is not None:
        shown.append(f"linear {record.linear_probe:.2f}")
    return [f"  features: {', '.join(shown)}"] if shown else []


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
    if record.linear_probe is not None:
        found["probe/linear_top1"] = record.linear_probe
    for name in ("effective_rank", "projected_rank"):
        if (rank := getattr(record, name)) is not None:
            found[f"features/{name}"] = rank
    if record.loss is not None and record.loss_over_chance is not None:
        found |= {"train/loss": record.loss, "train/loss_over_chance": record.loss_over_chance}
    for j, head in enumerate(record.heads):
        for name in ("smallest", "largest", "empty", "violation", "churn"):
            found[f"head{j}/{name}"] = float(getattr(head, name))
    return found


def collapse_warnings(record: EpochRecord, n_images: int) -> list[str]:
    """Warnings of a collapse of the representation, each with a setting to change."""
    warnings = []
    for j, head in enumerate(record.heads):
        if head.largest > max(COLLAPSED_SHARE, 1.5 / head.n_clusters) * n_images:
            warnings.append(
                f"collapse: one cluster of head {j} (K={head.n_clusters:,}) holds "
                f"{head.largest / n_images:.0%} of the images. Raise clustering.min_ratio, use "
                "clustering.dual_rule=auto, or lower optimizer.lr"
            )
    rank = record.effective_rank
    if record.epoch >= 1 and rank is not None and rank < COLLAPSED_RANK:
        warnings.append(
            f"collapse: the effective rank of the features is {rank:.1f}, so nearly all images "
            "have the same ones. Lower optimizer.lr, raise clustering.min_ratio, or use "
            "more clusters (clustering.n_clusters)"
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
    """How ranks and pieces share a batch, in words; empty if one rank takes it whole."""
    ranks = f" on {world_size()} ranks" if world_size() > 1 else ""
    return ranks + (
        f" in {config.optimizer.accumulate} pieces" if config.optimizer.accumulate > 1 else ""
    )
