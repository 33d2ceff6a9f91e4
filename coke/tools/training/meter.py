"""Counts of one epoch: images, seconds, waiting, loss."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from coke.files.byte_size import show_bytes
from coke.pipeline.loading.loader import Batch
from coke.tools.training.feature_sample import FeatureSample
from coke.tools.training.peak_memory import peak_memory

#: Seconds between two displays of the loss. Each makes a GPU finish the work it has queued.
_REFRESH_S = 0.5


class EpochMeter:
    """Counts images, seconds, waiting and loss of one epoch.

    Args:
        progress: the display that the epoch's task is shown on.
        tasks: the epoch's task and that of all epochs.
        left_out: images of the epoch that are in no batch.
        state: :meth:`state` of the same epoch if it was interrupted.

    Attributes:
        sample: features of the epoch's last images.
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
        self.sample = FeatureSample()
        self._started = time.perf_counter()
        self._waited = 0.0
        self._shown = 0.0
        if state is not None:
            self.images, self.skipped = int(state["images"]), int(state["skipped"])
            self._losses_2.copy_(torch.as_tensor(state["losses"]))
            self._started -= float(state["seconds"])
            self._waited = float(state["waited"])
            self.sample = FeatureSample(state.get("sample"), device)

    def state(self) -> dict[str, Any]:
        """The counts so far, for a checkpoint within the epoch."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "losses": self._losses_2,
            "seconds": self.seconds,
            "waited": self._waited,
            "sample": self.sample.state(),
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

    def update(self, n_images: int, loss: Tensor | None, valid: Tensor) -> None:
        """Counts a step.

        Args:
            n_images: images of all ranks.
            loss: () of the step, None for the scan; left out if the step is not valid.
            valid: () bool.
        """
        self.images += n_images
        if loss is not None:
            counted = torch.stack([loss, torch.ones_like(loss)]).double() * n_images
            self._losses_2 += torch.where(valid, counted, 0.0)
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
