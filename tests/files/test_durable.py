"""Durable writes: the old file or the new one, whatever ends the process, at any instant."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coke.files import durable

OLD, NEW = b"old", b"new " * 50_000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_is_replaced_or_made(tmp_path: Path, exists: bool) -> None:
    name = os.fsdecode("größe.json".encode())
    path = tmp_path / name
    if exists:
        path.write_bytes(OLD)
    durable.write_json(path, {"ü": [1.5, None]}, indent=1)
    assert path.read_bytes() == b'{\n "\\u00fc": [\n  1.5,\n  null\n ]\n}\n'
    durable.write_text(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    durable.write_bytes(path, b"")
    assert path.read_bytes() == b"" and names(tmp_path) == [name]


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def fail() -> None:
        with durable.draft_of(path) as draft:
            draft.write_bytes(NEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == OLD and names(tmp_path) == ["file"]


def test_an_exclusive_write_refuses_a_file_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_bytes(path, OLD, exclusive=True)
    with pytest.raises(FileExistsError, match="file exists"):
        durable.write_bytes(path, NEW, exclusive=True)
    assert path.read_bytes() == OLD and names(tmp_path) == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_an_exclusive_write_refuses_a_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuses(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", refuses)
    durable.write_bytes(tmp_path / "first", NEW, exclusive=True)
    path = tmp_path / "file"

    def too_late() -> None:
        with durable.draft_of(path, exclusive=True) as draft:
            draft.write_bytes(NEW)
            path.write_bytes(OLD)

    with pytest.raises(FileExistsError):
        too_late()
    assert path.read_bytes() == OLD and names(tmp_path) == ["file", "first"]


def test_shared_writers_have_a_draft_each(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        durable.draft_of(path, shared=True) as mine,
        durable.draft_of(path, shared=True) as other,
    ):
        assert mine != other
        mine.write_bytes(b"mine")
        other.write_bytes(b"other")
    assert path.read_bytes() == b"mine", "the outer block ends last"
    assert names(tmp_path) == ["file"]


def stop_before(n: int, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    """Calls ``stop`` before the n-th change of the disk that has a system call of its own."""
    count = itertools.count()

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) == n:
                stop()
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "link", "unlink"):
        watch(name)


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_kill_before_any_change_leaves_the_old_file_or_the_new(
    tmp_path: Path, exclusive: bool
) -> None:
    seen = set()
    for n in itertools.count():
        path = tmp_path / f"{n}" / "file"
        path.parent.mkdir()
        if not exclusive:
            path.write_bytes(OLD)
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                stop_before(n, patch, lambda: os._exit(9))
                durable.write_bytes(path, NEW, exclusive=exclusive)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = path.read_bytes() if path.exists() else None
        assert found in (NEW, None if exclusive else OLD)
        seen.add(found)
        durable.write_bytes(path, NEW)
        assert names(path.parent) == ["file"], "the next write clears the draft"
        if status == 0:
            break
        assert status == 9
    assert len(seen) == 2 and n >= 3


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    for n in itertools.count():
        path = tmp_path / f"{n}" / "file"
        path.parent.mkdir()
        path.write_bytes(OLD)
        failed: list[int] = []

        def fail(failed: list[int] = failed, n: int = n) -> None:
            failed.append(n)
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.MonkeyPatch.context() as patch, suppress(OSError):
            stop_before(n, patch, fail)
            durable.write_bytes(path, NEW)
        assert path.read_bytes() in (OLD, NEW)
        durable.write_bytes(path, OLD)
        assert names(path.parent) == ["file"]
        if not failed:
            break
    assert n >= 3


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def no_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    durable.write_bytes(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


def test_finished_files_move_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("b", "a"):
        (tmp_path / "drafts" / name).write_text(name, encoding="utf-8")
    durable.rename(tmp_path / "drafts" / "b", tmp_path / "out" / "c")
    durable.move_into(tmp_path / "out", [tmp_path / "drafts" / "a"])
    assert names(tmp_path / "drafts") == [] and names(tmp_path / "out") == ["a", "c"]
    assert (tmp_path / "out" / "c").read_text(encoding="utf-8") == "b"


def test_text_is_added_at_the_end(tmp_path: Path) -> None:
    for text in ("1\n", "ü\n"):
        durable.append_text(tmp_path / "lines", text)
    assert (tmp_path / "lines").read_bytes() == b"1\n\xc3\xbc\n"


@pytest.mark.parametrize("exclusive", [True, False])
def test_bytes_are_synced_before_their_name_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """The order of these calls decides what a power cut leaves, which no test can cause."""
    calls = []

    def watch(name: str, said: Callable[[Any], str]) -> None:
        real = getattr(os, name)

        def call(first: Any, *rest: Any) -> Any:
            calls.append(said(first))
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)

    watch("fsync", lambda file: "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "bytes")
    for name in ("replace", "link"):
        watch(name, lambda _: "name")
    durable.write_bytes(tmp_path / "file", NEW, exclusive=exclusive)
    assert calls == ["bytes", "name", "folder"]
