"""Checkpoints are complete or not there at all, whatever ends the process, at any instant."""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from coke.tools.runs.checkpoint import (
    FORMAT_VERSION,
    CheckpointName,
    list_checkpoints,
    load_checkpoint,
    point_to,
    prune,
    save_checkpoint,
)

Hook = Callable[[str], None]


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(p.name for p in folder.iterdir())


def checkpoints(folder: Path) -> list[str]:
    return [p.name for p in list_checkpoints(folder)]


def end(epoch: int) -> CheckpointName:
    return CheckpointName(epoch=epoch)


def save(folder: Path, *moments: CheckpointName) -> Path:
    for moment in moments:
        path = save_checkpoint(folder, moment, {"epoch": moment.epoch, "step": moment.step})
    return path


def test_round_trip(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    state = {
        "model": net.state_dict(),
        "labels": torch.tensor([[1, -1]], dtype=torch.int16),
        "nested": {"epoch": 3, "parts": [torch.zeros(0), None, 0.5, "text"]},
    }
    path = save_checkpoint(tmp_path / "new" / "folder", end(3), state)
    assert path == tmp_path / "new" / "folder" / "epoch-0003"
    loaded = load_checkpoint(path)
    assert loaded.pop("format_version") == FORMAT_VERSION
    assert loaded.keys() == state.keys()
    torch.testing.assert_close(loaded["model"]["weight"], net.weight.data)
    assert loaded["labels"].dtype == torch.int16 and loaded["labels"].tolist() == [[1, -1]]
    assert loaded["nested"]["epoch"] == 3
    assert loaded["nested"]["parts"][1:] == [None, 0.5, "text"]


def test_names_say_when_and_sort_by_it(tmp_path: Path) -> None:
    moments = [
        end(0),
        CheckpointName(epoch=1, step=9),
        CheckpointName(epoch=1, step=12_345_678),
        end(1),
        CheckpointName(epoch=2, step=12_345_679),
        end(9999),
        end(10_000),
    ]
    for moment in reversed(moments):
        assert save(tmp_path, moment).name == moment.folder_name
    assert [CheckpointName.of(p) for p in list_checkpoints(tmp_path)] == moments
    assert moments[1].folder_name == "epoch-0001-step-0000009"
    assert not moments[1].ends_epoch and moments[3].ends_epoch


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, *map(end, range(6)))
    prune(tmp_path, keep=2, best_epoch=1)
    assert checkpoints(tmp_path) == ["epoch-0001", "epoch-0004", "epoch-0005"]
    prune(tmp_path, keep=2, best_epoch=None)
    assert checkpoints(tmp_path) == ["epoch-0004", "epoch-0005"]


def test_steps_are_kept_until_their_epoch_is(tmp_path: Path) -> None:
    save(tmp_path, end(0), *(CheckpointName(epoch=1, step=s) for s in (5, 6, 7)))
    prune(tmp_path, keep=2)
    steps = ["epoch-0001-step-0000006", "epoch-0001-step-0000007"]
    assert checkpoints(tmp_path) == ["epoch-0000", *steps]
    save(tmp_path, end(1))
    prune(tmp_path, keep=2)
    assert checkpoints(tmp_path) == ["epoch-0000", "epoch-0001"]


def test_links_lead_to_the_newest_and_the_best(tmp_path: Path) -> None:
    save(tmp_path, end(0), end(1))
    point_to(tmp_path, "best", tmp_path / "epoch-0000")
    assert load_checkpoint(tmp_path / "latest")["epoch"] == 1
    assert load_checkpoint(tmp_path / "best")["epoch"] == 0
    point_to(tmp_path, "best", tmp_path / "epoch-0001")
    assert load_checkpoint(tmp_path / "best")["epoch"] == 1
    assert names(tmp_path) == ["best", "epoch-0000", "epoch-0001", "latest"]


def test_a_file_system_without_links_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuses)
    save(tmp_path, end(0))
    assert names(tmp_path) == ["epoch-0000"]


def test_the_same_moment_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, end(1), {"value": "old"})
    path = save_checkpoint(tmp_path, end(1), {"value": "new"})
    assert load_checkpoint(path)["value"] == "new"
    assert names(tmp_path) == ["epoch-0001", "latest"]


def test_incomplete_folders_do_not_count_and_are_cleared_away(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "gone") == []
    save(tmp_path, end(1))
    (tmp_path / "epoch-0002").mkdir()
    (tmp_path / ".epoch-0003.partial").mkdir()
    (tmp_path / ".epoch-0003.partial" / "state.pt").write_bytes(b"half")
    assert checkpoints(tmp_path) == ["epoch-0001"]
    prune(tmp_path, keep=1)
    assert names(tmp_path) == ["epoch-0001", "latest"]


@contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """Calls ``hook`` before every change of the disk: each write, sync, rename, removal."""

    class Watched:
        """A file of which every write is one change."""

        def __init__(self, file: IO[bytes]) -> None:
            self._file = file

        def write(self, data: Any) -> int:
            hook("write")
            written = self._file.write(data)
            self._file.flush()  # so that what was written before a kill is on the disk, half done
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            hook(name)
            return real(*args, **kwargs)

        patch.setattr(owner, name, call)

    real_open = builtins.open

    def watched_open(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real_open(path, mode, *args, **kwargs)
        return Watched(file) if mode == "wb" else file

    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "fsync", "replace", "rmdir", "symlink", "unlink"):
            watch(os, name)
        watch(shutil, "rmtree")
        patch.setattr(builtins, "open", watched_open)
        yield


def changes_until(n: int, then: Callable[[], None]) -> Hook:
    count = itertools.count()

    def hook(_: str) -> None:
        if next(count) == n:
            then()

    return hook


def save_and_prune(folder: Path, moment: CheckpointName) -> None:
    save_checkpoint(folder, moment, {"x": torch.arange(50_000), "epoch": moment.epoch})
    prune(folder, keep=1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [end(2)], ids=str)
def test_a_kill_before_any_change_of_the_disk_loses_nothing(
    tmp_path: Path, moment: CheckpointName
) -> None:
    """The process ends without another instruction, as by kill -9, before the n-th change."""
    for n in itertools.count():
        folder = tmp_path / f"killed-{n}"
        save(folder, end(0), end(1))
        child = os.fork()
        if child == 0:
            with watched(changes_until(n, lambda: os._exit(9))):
                save_and_prune(folder, moment)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [load_checkpoint(p) for p in list_checkpoints(folder)]
        assert found[-1]["epoch"] in (1, 2), "the newest is the one before, or the new one"
        save_and_prune(folder, end(3))
        assert names(folder) == ["epoch-0003", "latest"], "and what was left behind goes"
        if status == 0:
            break
        assert status == 9
    assert n >= 8, "there are as many changes at least"


@pytest.mark.slow
@pytest.mark.parametrize("moment", [end(1), end(2)], ids=str)
def test_an_error_at_any_change_of_the_disk_loses_nothing(
    tmp_path: Path, moment: CheckpointName
) -> None:
    errors = []
    for n in itertools.count():
        folder = tmp_path / f"failed-{n}"
        save(folder, end(0), end(1))
        happened: list[int] = []

        def fail(happened: list[int] = happened, n: int = n) -> None:
            happened.append(n)
            raise OSError(errno.EIO, "Input/output error")

        with watched(changes_until(n, fail)):
            try:
                save_and_prune(folder, moment)
            except (ValueError, OSError) as error:
                errors.append(str(error))
        if not happened:
            break
        found = [load_checkpoint(p) for p in list_checkpoints(folder)]
        assert found[-1]["epoch"] in (1, 2)
        save_and_prune(folder, end(3))
        assert names(folder) == ["epoch-0003", "latest"]
    assert sum("could not be written ([Errno 5]" in e for e in errors) >= 5
    assert all("free space and use --resume auto" in e for e in errors if "could not" in e)


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # no file may be longer
try:
    save_checkpoint(Path(sys.argv[1]), CheckpointName(epoch=2), {"x": torch.zeros(1_000_000)})
except ValueError as error:
    sys.exit(f"error: {error}")
"""


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    size = 4 * 2**20
    mounted = _mount_small(folder, size)
    try:
        save(folder, end(1))
        if mounted:
            with pytest.raises(
                ValueError, match=r"epoch-0002 could not be written .*No space left"
            ):
                save_checkpoint(folder, end(2), {"x": torch.zeros(size)})
        else:
            done = subprocess.run(
                [sys.executable, "-c", FULL_DISK, str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "epoch-0002 could not be written" in done.stderr, done.stderr
            assert "File too large" in done.stderr
        assert names(folder) == ["epoch-0001", "latest"]
        assert load_checkpoint(folder / "epoch-0001")["epoch"] == 1
        save_checkpoint(folder, end(2), {"x": torch.zeros(100)})
        assert checkpoints(folder) == ["epoch-0001", "epoch-0002"]
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _mount_small(folder: Path, size: int) -> bool:
    """A file system of so many bytes, where this user may make one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")]
)
@pytest.mark.parametrize("epoch", [3, 2])  # 2 would replace one that is there
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, epoch: int
) -> None:
    save(tmp_path, end(1), end(2))

    def failing_save(state: Any, file: IO[bytes]) -> None:
        file.write(b"some bytes")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", failing_save)
    message = f"epoch-{epoch:04d} could not be written ({error}); the ones before it are intact"
    with pytest.raises(ValueError, match=re.escape(message)):
        save_checkpoint(tmp_path, end(epoch), {"epoch": epoch})
    assert names(tmp_path) == ["epoch-0001", "epoch-0002", "latest"]
    assert [load_checkpoint(p)["epoch"] for p in list_checkpoints(tmp_path)] == [1, 2]


@pytest.mark.parametrize("again", [False, True])
def test_bytes_are_synced_before_the_rename(tmp_path: Path, again: bool) -> None:
    if again:
        save(tmp_path, end(1))
    calls: list[str] = []
    with watched(calls.append):
        save(tmp_path, end(1))
    order = [c for c in calls if c in ("fsync", "replace")]
    # the file; (the folder it is in;) its final name; the folder(s) that hold that; `latest`
    new = ["fsync", "fsync", "replace", "fsync", "replace"]
    assert order == (["fsync", "replace", "fsync", "fsync", "replace"] if again else new)
    assert calls.index("write") < calls.index("fsync")


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = save_checkpoint(tmp_path, end(1), {"x": torch.arange(100)})
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
