"""Putting a folder in the place of another: the old one is never lost."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from coke.files.place import Place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def folder(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(text, encoding="utf-8")
    return path


def test_names_stand_beside_the_folder_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "set")
    place = Place(tmp_path / "out")
    assert place.final == tmp_path / "disk" / "set"
    assert place.partial == tmp_path / "disk" / ".set.partial"


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_takes_the_place(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        folder(out, "old")
    Place(out).put(folder(tmp_path / "new", "new"))
    assert (out / "file").read_text(encoding="utf-8") == "new" and names(tmp_path) == ["out"]


#: Names of Python's audit events before a change of the disk.
CHANGES = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir")


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False])
def test_a_kill_before_any_change_leaves_the_old_folder_or_the_new(
    tmp_path: Path, exists: bool
) -> None:
    """A folder has its name whole or not at all; an old one is kept until the new one has it."""
    seen = set()
    for n in itertools.count():
        out, new = tmp_path / f"{n}" / "out", folder(tmp_path / f"{n}" / "new", "new")
        (new / "more").write_text("new", encoding="utf-8")
        if exists:
            folder(out, "old")
        child = os.fork()
        if child == 0:
            changes = itertools.count()

            def stop(event: str, _: Any, n: int = n, changes: Any = changes) -> None:
                if event in CHANGES and next(changes) == n:
                    os._exit(9)

            sys.addaudithook(stop)
            Place(out).put(new)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Place(out).clean()
        found = tuple(names(out)) if out.exists() else None
        assert found in (("file", "more"), ("file",) if exists else None)
        seen.add(found)
        if status == 0:
            break
        assert status == 9
    assert len(seen) == 2 and n >= 2


def test_an_error_gives_the_old_folder_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new, rename = folder(tmp_path / "out", "old"), folder(tmp_path / "new", "new"), Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == new:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        Place(out).put(new)
    assert (out / "file").read_text(encoding="utf-8") == "old" and names(tmp_path) == ["new", "out"]


def test_a_killed_run_is_cleaned_up_after(tmp_path: Path) -> None:
    place = Place(tmp_path / "out")
    place.clean()  # there is nothing to do
    folder(place.replaced, "old")  # killed between the two renamings
    folder(place.done, "work")
    place.clean()
    assert (tmp_path / "out" / "file").read_text(encoding="utf-8") == "old" and names(tmp_path) == [
        "out"
    ]
    folder(place.replaced, "older")  # killed after the second one
    place.clean()
    assert (tmp_path / "out" / "file").read_text(encoding="utf-8") == "old" and names(tmp_path) == [
        "out"
    ]


def test_partial_work_is_removed_under_another_name(tmp_path: Path) -> None:
    place = Place(tmp_path / "out")
    folder(place.partial / "plan", "work")
    folder(place.done, "left by a killed removal")
    place.remove_partial()
    assert names(tmp_path) == []
