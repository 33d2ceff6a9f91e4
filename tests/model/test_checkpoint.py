"""Checkpoints are complete or not there at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from coke.model.checkpoint import (
    FORMAT_VERSION,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    state = {
        "model": net.state_dict(),
        "labels": torch.tensor([[1, -1]], dtype=torch.int16),
        "nested": {"epoch": 3, "parts": [torch.zeros(0), None, 0.5, "text"]},
    }
    path = save_checkpoint(tmp_path / "new" / "folder", 3, state, keep=2)
    assert path == tmp_path / "new" / "folder" / "epoch-0003"
    loaded = load_checkpoint(path)
    assert loaded.pop("format_version") == FORMAT_VERSION
    assert loaded.keys() == state.keys()
    torch.testing.assert_close(loaded["model"]["weight"], net.weight.data)
    assert loaded["labels"].dtype == torch.int16 and loaded["labels"].tolist() == [[1, -1]]
    assert loaded["nested"]["epoch"] == 3
    assert loaded["nested"]["parts"][1:] == [None, 0.5, "text"]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 10, 9):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch}, keep=3)
    assert names(tmp_path) == ["epoch-0002", "epoch-0009", "epoch-0010"]
    assert [p.name for p in list_checkpoints(tmp_path)] == names(tmp_path)


def test_the_newest_are_kept_beyond_epoch_9999(tmp_path: Path) -> None:
    for epoch in (9998, 9999, 10_000):
        path = save_checkpoint(tmp_path, epoch, {"epoch": epoch}, keep=2)
        assert path.exists()
        assert list_checkpoints(tmp_path)[-1] == path


def test_the_same_epoch_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"value": "old"}, keep=2)
    path = save_checkpoint(tmp_path, 1, {"value": "new"}, keep=2)
    assert load_checkpoint(path)["value"] == "new"
    assert names(tmp_path) == ["epoch-0001"]


def test_incomplete_folders_do_not_count(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "gone") == []
    save_checkpoint(tmp_path, 1, {}, keep=2)
    (tmp_path / "epoch-0002").mkdir()
    (tmp_path / ".epoch-0003.partial").mkdir()
    (tmp_path / ".epoch-0003.partial" / "state.pt").write_bytes(b"half")
    assert [p.name for p in list_checkpoints(tmp_path)] == ["epoch-0001"]


def test_leftovers_of_a_kill_are_written_over(tmp_path: Path) -> None:
    (tmp_path / ".epoch-0001.partial").mkdir()
    (tmp_path / ".epoch-0001.partial" / "state.pt").write_bytes(b"half")
    path = save_checkpoint(tmp_path, 1, {"value": 1}, keep=2)
    assert load_checkpoint(path)["value"] == 1
    assert names(tmp_path) == ["epoch-0001"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")]
)
@pytest.mark.parametrize("epoch", [3, 2])  # 2 would replace one that is there
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, epoch: int
) -> None:
    for old in (1, 2):
        save_checkpoint(tmp_path, old, {"epoch": old}, keep=2)

    def failing_save(state: Any, file: IO[bytes]) -> None:
        file.write(b"some bytes")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", failing_save)
    message = f"epoch-{epoch:04d} could not be written ({error}); free space and use --resume"
    with pytest.raises(ValueError, match=re.escape(message)):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch}, keep=1)
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]
    assert [load_checkpoint(p)["epoch"] for p in list_checkpoints(tmp_path)] == [1, 2]


def test_bytes_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        calls.append("sync")
        real_sync(handle)

    def replace(source: Path, target: Path) -> None:
        assert (source / "state.pt").stat().st_size > 0
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save_checkpoint(tmp_path, 1, {}, keep=1)
    # the file; the folder it is in; its final name; the folder that holds that
    assert calls == ["sync", "sync", "rename", "sync"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = save_checkpoint(tmp_path, 1, {"x": torch.arange(100)}, keep=1)
    file = path / "state.pt"
    data = file.read_bytes()
    file.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"x" * 99}.get(damage, b""))
    if damage == "missing":
        file.unlink()
    with pytest.raises(ValueError, match=r"epoch-0001 cannot be read \(\w+\); delete it to resume"):
        load_checkpoint(path)


class Payload:
    """What unpickling must not run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("ran",))


def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "epoch-0001").mkdir()
    torch.save({"format_version": FORMAT_VERSION, "x": Payload()}, tmp_path / "epoch-0001/state.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path / "epoch-0001")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "state",
    [
        {"format_version": FORMAT_VERSION + 1},
        {"x": 1},
        torch.ones(2),
    ],
)
def test_another_format_is_refused_with_both_versions(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "state.pt")
    version = state.get("format_version") if isinstance(state, dict) else None
    message = f"has format version {version}; this coke reads {FORMAT_VERSION}"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path)
