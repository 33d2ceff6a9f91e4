"""Checkpoints: a directory per epoch, complete or not there at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

FORMAT_VERSION = 1
_PREFIX = "epoch-"


def save_checkpoint(folder: Path, epoch: int, state: dict[str, Any], keep: int) -> Path:
    """Writes ``folder/epoch-NNNN`` beside its final name, syncs it, renames it into place.

    Older checkpoints beyond the newest ``keep`` are removed afterwards.

    Raises:
        ValueError: the disk refused; nothing incomplete is left and older checkpoints are kept.
    """
    final = folder / f"{_PREFIX}{epoch:04d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with (partial / "state.pt").open("wb") as file:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(partial)
        if final.exists():  # the same epoch, written again after a resume
            shutil.rmtree(final)
        os.replace(partial, final)
        _sync_directory(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(
            f"checkpoint {final} could not be written ({error}); free space and use --resume"
        ) from error
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in folder.glob(f"{_PREFIX}[0-9]*") if (p / "state.pt").is_file()]
    return sorted(found, key=epoch_of)


def epoch_of(checkpoint: Path) -> int:
    """The epoch a checkpoint was written after."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        ValueError: it is damaged, or of another format version.
    """
    try:
        state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
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


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
