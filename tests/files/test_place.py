"""Putting a folder in the place of another: the old one is never lost."""

from __future__ import annotations

import errno
from pathlib import Path

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
