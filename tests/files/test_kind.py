"""Which folders may be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.files.kind import check_free, kind_of_files

KIND = kind_of_files(
    "thing", marker="about.json", says="coke-thing", files=frozenset({"about.json", "a.npy"})
)


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    (out / "about.json").write_text('{"format": "coke-thing"}', encoding="utf-8")
    (out / "a.npy").touch()
    return out


def refusal(out: Path, *, overwrite: bool = True) -> str:
    with pytest.raises(ValueError, match=".") as error:
        check_free(out, overwrite=overwrite, kind=KIND)
    return str(error.value)


def test_a_missing_or_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for overwrite in (False, True):
        check_free(tmp_path / "missing", overwrite=overwrite, kind=KIND)
        check_free(tmp_path / "empty", overwrite=overwrite, kind=KIND)


def test_a_folder_of_the_kind_is_replaced_on_demand(thing: Path) -> None:
    check_free(thing, overwrite=True, kind=KIND)
    assert "is not empty; add --overwrite to replace it" in refusal(thing, overwrite=False)


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file").endswith("is a file; give a folder for the thing")


def test_foreign_files_are_never_replaced(thing: Path) -> None:
    (thing / "b.txt").touch()
    assert f"holds {thing / 'b.txt'}, which is no part of a coke thing" in refusal(thing)
    (thing / "b.txt").unlink()
    (thing / "a.npy").unlink()
    (thing / "a.npy").mkdir()  # a folder with the name of a file of ours
    assert f"holds {thing / 'a.npy'}" in refusal(thing)


@pytest.mark.parametrize("text", [None, "", '{"format": "other"}'])
def test_without_its_marker_a_folder_is_of_no_kind(thing: Path, text: str | None) -> None:
    (thing / "about.json").unlink()
    if text is not None:
        (thing / "about.json").write_text(text, encoding="utf-8")
    assert f"holds {thing / 'a.npy'}" in refusal(thing)
