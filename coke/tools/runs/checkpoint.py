"""Checkpoints: a directory each, complete or not there at all.

``epoch-0003`` was taken when epoch 3 had ended, ``epoch-0004-step-0000051`` within epoch 4, when
the run had done 51 steps. ``latest`` and ``best`` are links for people; nothing here reads them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from coke.files import durable

FORMAT_VERSION = 2
_STATE = "state.pt"
_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{7,}))?")


@dataclass(frozen=True, kw_only=True)
class CheckpointName:
    """When a checkpoint was taken, which is its name.

    Attributes:
        epoch: the epoch that had ended, or within which it was.
        step: optimisation steps of the whole run until then; None at the end of an epoch.
    """

    epoch: int
    step: int | None = None

    @property
    def folder_name(self) -> str:
        """Name of the checkpoint's folder."""
        within = "" if self.step is None else f"-step-{self.step:07d}"
        return f"epoch-{self.epoch:04d}{within}"

    @classmethod
    def of(cls, checkpoint: Path) -> Self:
        """The name of a checkpoint's folder, parsed."""
        found = _NAME.fullmatch(checkpoint.name)
        assert found is not None, f"{checkpoint} is not named as a checkpoint"
        return cls(epoch=int(found[1]), step=None if found[2] is None else int(found[2]))

    @property
    def ends_epoch(self) -> bool:
        return self.step is None

    def __lt__(self, other: CheckpointName) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, bool, int]:
        return self.epoch, self.ends_epoch, self.step or 0


def save_checkpoint(folder: Path, name: CheckpointName, state: dict[str, Any]) -> Path:
    """Writes a checkpoint beside its final name, syncs it, renames it into place.

    Nothing that was there is touched before the new one is safe on the disk, so whatever kills the
    process, at any instant, a complete checkpoint remains where there was one.

    Raises:
        ValueError: the disk refused; nothing incomplete is left and other checkpoints are as
            they were.
    """
    final = folder / name.folder_name
    partial = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with open(partial / _STATE, "wb") as file:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
        if final.exists():  # of the same step, after a resume from an older one: swap the file
            durable.rename(partial / _STATE, final / _STATE)
            os.rmdir(partial)
            durable.flush(folder)
        else:
            durable.flush(partial / _STATE)
            durable.rename(partial, final)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(
            f"checkpoint {final} could not be written ({_cause(error)}); the ones before it are "
            "intact: free space and use --resume auto"
        ) from error
    point_to(folder, "latest", final)
    return final


def point_to(folder: Path, link: str, checkpoint: Path) -> None:
    """Sets the link ``latest`` or ``best``, where the file system has links."""
    draft = folder / f".{link}.partial"
    with suppress(OSError):
        draft.unlink(missing_ok=True)
        os.symlink(checkpoint.name, draft)
        os.replace(draft, folder / link)


def prune(folder: Path, *, keep: int, best_epoch: int | None = None) -> None:
    """Removes what newer checkpoints have replaced, and what a killed process left behind.

    The newest ``keep`` ends of epochs stay, and that of ``best_epoch``; of checkpoints within an
    epoch the newest ``keep``, until the end of that epoch is saved.
    """
    found = [(path, CheckpointName.of(path)) for path in list_checkpoints(folder)]
    ends = [path for path, name in found if name.ends_epoch]
    newest_end = CheckpointName.of(ends[-1]) if ends else None
    within = [path for path, name in found if not name.ends_epoch]
    current = [p for p in within if newest_end is None or newest_end < CheckpointName.of(p)]
    kept = {*ends[-keep:], *current[-keep:]}
    if best_epoch is not None:
        kept.add(folder / CheckpointName(epoch=best_epoch).folder_name)
    for path, _ in found:
        if path not in kept:
            _remove(path)
    for leftover in [*folder.glob(".epoch-*"), *_without_state(folder)]:
        shutil.rmtree(leftover, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in _named(folder) if (path / _STATE).is_file()]
    return sorted(found, key=CheckpointName.of)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        ValueError: it is damaged, or of another format version.
    """
    try:
        state: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types here
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); "
            "delete it to resume from the one before"
        ) from error
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {path} has format version {version}; this coke reads {FORMAT_VERSION}"
        )
    return state


def _cause(error: BaseException) -> BaseException:
    """What the system said: torch's own error after a failed write is about its file positions."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, OSError):
        first = first.__context__
    return first or error


def _named(folder: Path) -> Iterator[Path]:
    return (p for p in folder.glob("epoch-*") if _NAME.fullmatch(p.name))


def _without_state(folder: Path) -> list[Path]:
    return [path for path in _named(folder) if not (path / _STATE).exists()]


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint under a hidden name: a kill leaves nothing that looks like one."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(checkpoint, hidden)
    shutil.rmtree(hidden)
