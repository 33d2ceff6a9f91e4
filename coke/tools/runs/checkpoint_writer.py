"""Saving checkpoints beside the training: copied to the CPU at once, written by a thread."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from coke.tools.runs.checkpoint import (
    CheckpointName,
    list_checkpoints,
    point_to,
    prune,
    save_checkpoint,
)


class CheckpointWriter:
    """Writes checkpoints of a run while it goes on; at most one is on its way.

    Costs the memory of one state on the CPU, and the time to copy it there: about what the bytes
    take over PCIe, or in memory on a CPU. Where saving is slower than training, :meth:`save` waits
    for the one before.

    Args:
        folder: where checkpoints go.
        keep: how many to keep, see :func:`coke.tools.runs.checkpoint.prune`.
        writes: on other ranks than one, False: :meth:`save` does nothing there.
    """

    def __init__(self, folder: Path, keep: int, *, writes: bool = True) -> None:
        self._writes = writes
        self._folder = folder
        self._keep = keep
        # The interpreter joins an executor's thread at its end: a started save is finished.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None

    def save(
        self, name: CheckpointName, state: dict[str, Any], best_epoch: int | None = None
    ) -> None:
        """Starts to save; returns as soon as ``state`` may change again.

        Raises:
            ValueError: the save before this one failed.
        """
        if not self._writes:
            return
        self.wait()
        self._saving = self._thread.submit(self._write, name, on_cpu(state), best_epoch)

    def raise_error(self) -> None:
        """Raises what a save that has ended ran into; does not wait for one that has not."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Until the save on its way is on the disk. Raises ValueError where it failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(self, name: CheckpointName, state: dict[str, Any], best_epoch: int | None) -> None:
        save_checkpoint(self._folder, name, state)
        best = (
            None
            if best_epoch is None
            else self._folder / CheckpointName(epoch=best_epoch).folder_name
        )
        if best is not None and best in list_checkpoints(self._folder):
            point_to(self._folder, "best", best)
        try:
            prune(self._folder, keep=self._keep, best_epoch=best_epoch)
        except OSError as error:
            raise ValueError(
                f"old checkpoints in {self._folder} cannot be removed ({error}); the new one is "
                "safe: use --resume once that is mended"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        try:
            self.wait()
        except ValueError as failed:
            if error is None:
                raise
            error.add_note(str(failed))  # what ended the run comes first


def on_cpu(state: Any) -> Any:
    """A copy of a nested state that shares no memory with it, its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(state, Mapping):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(on_cpu, state))
    return state
