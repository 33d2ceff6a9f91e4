"""OUT is a mounted volume's root: nothing can be renamed onto it, or across its border."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from coke.files import inner_place
from coke.files.inner_place import is_mount, place_of
from coke.files.kind import kind_of_files
from coke.files.publish import claimed, published

QUIET = Console(quiet=True)
FILES = ("a.bin", "b.bin", "manifest.json")
KIND = kind_of_files("thing", marker="manifest.json", says="coke-thing", files=frozenset(FILES))


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that behaves as if a file system were mounted on it."""
    out = tmp_path / "volume"
    out.mkdir()
    rename = Path.rename

    def guarded(self: Path, target: Path) -> Path:
        if out in (self, Path(target)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        if self.is_relative_to(out) != Path(target).is_relative_to(out):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", guarded)
    monkeypatch.setattr(inner_place, "is_mount", lambda folder: folder == out)
    return out


def fill(folder: Path, text: str) -> None:
    (folder / "a.bin").write_text(text, encoding="utf-8")
    (folder / "b.bin").write_text(text, encoding="utf-8")
    (folder / "manifest.json").write_text(
        f'{{"format": "coke-thing", "text": "{text}"}}', encoding="utf-8"
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(folder: Path) -> set[str]:
    return {(folder / name).read_text(encoding="utf-8")[-3:] for name in ("a.bin", "b.bin")}


@pytest.mark.parametrize("there", ["", "lost+found"])
def test_a_volume_is_written_into(volume: Path, there: str) -> None:
    if there:
        (volume / there).mkdir()  # as in the root of an ext4 file system
    with published(volume, overwrite=False, kind=KIND) as folder:
        fill(folder, "new")
        assert folder.is_relative_to(volume) and not (volume / "manifest.json").exists()
    assert names(volume) == sorted([*FILES, *filter(None, [there])])
    assert names(volume.parent) == ["volume"]
    with (
        pytest.raises(ValueError, match="exists and is not empty; add --overwrite"),
        published(volume, overwrite=False, kind=KIND),
    ):
        raise AssertionError("the volume is taken")


def test_what_is_there_is_replaced_when_asked_and_nothing_foreign(volume: Path) -> None:
    fill(volume, "old")
    with published(volume, overwrite=True, kind=KIND) as folder:
        fill(folder, "new")
        assert texts(volume) == {"old"}
    assert texts(volume) == {"new"} and names(volume) == list(FILES)
    (volume / "thesis.tex").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(ValueError, match=r"thesis\.tex, which is no part of a coke thing"),
        published(volume, overwrite=True, kind=KIND),
    ):
        raise AssertionError("the volume holds foreign files")
    assert names(volume) == sorted([*FILES, "thesis.tex"])


def test_what_fails_leaves_nothing(volume: Path) -> None:
    def fail() -> None:
        with published(volume, overwrite=False, kind=KIND) as folder:
            fill(folder, "new")
            raise OSError(errno.ENOSPC, "No space left")

    with pytest.raises(ValueError, match="No space left"):
        fail()
    assert names(volume) == []


def failing_at(wanted: int, fail: Callable[[], None]) -> Callable[[Path, Path], Path]:
    """A ``Path.rename`` whose ``wanted``-th call, and all after it, fail."""
    rename, count = Path.rename, 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count >= wanted:
            fail()
        return rename(self, target)

    return counted


def write_and_be_killed(volume: Path, at: int, patch: pytest.MonkeyPatch) -> bool:
    """Whether a process that writes ``new`` was killed at a renaming."""
    child = os.fork()
    if child == 0:
        patch.setattr(Path, "rename", failing_at(at, lambda: os._exit(9)))
        with published(volume, overwrite=True, kind=KIND) as folder:
            fill(folder, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def write_and_fail(volume: Path, at: int, patch: pytest.MonkeyPatch) -> bool:
    """The same on a disk that fails at a renaming, and at all that would undo it."""

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with patch.context() as inner:
        inner.setattr(Path, "rename", failing_at(at, fail))
        try:
            with published(volume, overwrite=True, kind=KIND) as folder:
                fill(folder, "new")
        except (ValueError, OSError):
            return True
    return False


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("write", [write_and_be_killed, write_and_fail])
def test_an_end_at_any_renaming_leaves_the_old_or_the_new_one(
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: bool,
    at: int,
    write: Callable[[Path, int, pytest.MonkeyPatch], bool],
) -> None:
    if old:
        fill(volume, "old")
    died = write(volume, at, monkeypatch)
    # A reader sees a manifest only beside its own files.
    if (volume / "manifest.json").exists():
        text = (volume / "manifest.json").read_text(encoding="utf-8")
        assert texts(volume) == {"new" if "new" in text else "old"}
    with claimed(volume, overwrite=True, kind=KIND, console=QUIET):
        pass
    found = names(volume)
    assert found == list(FILES) if old or not died else found in (list(FILES), [])
    if found:
        assert len(texts(volume)) == 1
    with published(volume, overwrite=True, kind=KIND) as folder:
        fill(folder, "end")
    assert texts(volume) == {"end"} and names(volume) == list(FILES)


def test_a_folder_in_a_locked_parent_is_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with published(out, overwrite=False, kind=KIND) as folder:
        fill(folder, "new")
        assert folder.is_relative_to(out)
    assert names(out) == list(FILES)
    assert not place_of(tmp_path / "other").partial.is_relative_to(tmp_path / "other")


def test_mounts_are_known_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_mount(Path("/")) and not is_mount(tmp_path)
    table = tmp_path / "mountinfo"
    folder = tmp_path / "a b"
    place = str(folder).replace(" ", r"\040")
    table.write_text(
        f"36 35 98:0 /sub {place} rw,noatime master:1 - ext4 /dev/sda rw\n", encoding="utf-8"
    )
    monkeypatch.setattr(inner_place, "_MOUNTS", table)
    assert is_mount(folder)  # a part of the same file system, bound there
    monkeypatch.setattr(inner_place, "_MOUNTS", tmp_path / "none")
    assert not is_mount(folder)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_real_mount(tmp_path: Path, kind: str) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    arguments = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(other)]
    if subprocess.run(["mount", *arguments, str(out)], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        for text in ("one", "two"):
            with published(out, overwrite=True, kind=KIND) as folder:
                fill(folder, text)
            assert texts(out) == {text} and names(out) == list(FILES)
    finally:
        subprocess.run(["umount", str(out)], check=True)
    assert names(tmp_path) == ["other", "out"]
