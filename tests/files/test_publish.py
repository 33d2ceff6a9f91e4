"""Publishing: all or nothing, and one writer at a time."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest
from rich.console import Console

from coke.files.kind import kind_of_files
from coke.files.publish import claimed, published

QUIET = Console(quiet=True)
KIND = kind_of_files(
    "thing", marker="manifest.json", says="coke-thing", files=frozenset({"manifest.json"})
)


def fill(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(
        f'{{"format": "coke-thing", "text": "{text}"}}', encoding="utf-8"
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with published(out, overwrite=False, kind=KIND) as folder:
        fill(folder, "first")
        assert not out.exists()
    assert "first" in (out / "manifest.json").read_text(encoding="utf-8")
    with (
        pytest.raises(ValueError, match="add --overwrite"),
        published(out, overwrite=False, kind=KIND),
    ):
        raise AssertionError("the folder is taken")
    with published(out, overwrite=True, kind=KIND) as folder:
        fill(folder, "second")
        assert "first" in (out / "manifest.json").read_text(encoding="utf-8")
    assert "second" in (out / "manifest.json").read_text(encoding="utf-8")
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_failed_run_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with published(tmp_path / "out", overwrite=False, kind=KIND) as folder:
            fill(folder, "x")
            raise error

    with pytest.raises(ValueError if isinstance(error, OSError) else KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        claimed(out, overwrite=False, kind=KIND, console=QUIET),
        pytest.raises(ValueError, match=r"process \d+ on .* is writing .*out at this moment"),
        claimed(out, overwrite=False, kind=KIND, console=QUIET),
    ):
        raise AssertionError("two runs hold the same claim")
    with claimed(out, overwrite=False, kind=KIND, console=QUIET):
        pass
    assert names(tmp_path) == []


def test_a_lock_file_that_its_holder_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, the run that held it may end and clean up."""
    partial, flock = tmp_path / ".out.partial", fcntl.flock
    removed: list[bool] = []

    def flock_too_late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(True)
            (partial / "lock").unlink()
            partial.rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_too_late)
    with claimed(tmp_path / "out", overwrite=False, kind=KIND, console=QUIET):
        assert (partial / "lock").read_text(encoding="utf-8").startswith("process ")


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    console = Console(
        record=True, quiet=False, width=200, file=(tmp_path / "log").open("w", encoding="utf-8")
    )
    with claimed(tmp_path / "out", overwrite=False, kind=KIND, console=console):
        pass
    assert "has no locks" in console.export_text()


def test_the_next_run_finishes_a_killed_removal(tmp_path: Path) -> None:
    (tmp_path / ".out.done" / "journal").mkdir(parents=True)
    with claimed(tmp_path / "out", overwrite=False, kind=KIND, console=QUIET):
        assert not (tmp_path / ".out.done").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_run_that_came_after_publishing_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    with claimed(tmp_path / "out", overwrite=False, kind=KIND, console=QUIET):
        partial.rename(tmp_path / ".out.done")  # as publishing does
        partial.mkdir()
        (partial / "lock").write_text("of another run", encoding="utf-8")
    assert (partial / "lock").read_text(encoding="utf-8") == "of another run"
