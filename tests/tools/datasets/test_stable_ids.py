"""Which id an image gets, worked by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coke.tools.datasets.duplicates import duplicate_groups, duplicates_table, without_repeats
from coke.tools.datasets.stable_ids import (
    Assignment,
    Base,
    assign_ids,
    number_classes,
    read_bases,
)


def hashes(text: str) -> NDArray[np.uint8]:
    """One SHA-256 per letter: equal letters are equal files. A dot is none, all zeros."""
    rows = [[0 if letter == "." else ord(letter)] * 32 for letter in text]
    return np.array(rows, dtype=np.uint8).reshape(-1, 32)


def old(keys: str, contents: str, tombstones: str = "") -> Base:
    """A base whose keys are letters."""
    return Base(
        keys=list(keys),
        live=np.array([key not in tombstones for key in keys]),
        contents=hashes(contents),
        classes=[],
        identity="",
        folder=Path(),
        manifest_sha256="",
    )


def assigned(
    keys: str, contents: str, base: Base | None = None, match: str = "key"
) -> tuple[str, list[int], str]:
    """Keys by id, positions by id, contents by id."""
    found = assign_ids(list(keys), hashes(contents), base=base, match=match)
    letters = "".join("." if not row[0] else chr(row[0]) for row in found.contents)
    return "".join(found.keys), found.positions.tolist(), letters


def test_without_a_base_ids_are_ranks() -> None:
    assert assigned("abc", "XYZ") == ("abc", [0, 1, 2], "XYZ")


def test_a_base_keeps_its_ids_and_new_keys_follow() -> None:
    # b is gone; a and z are new, though a sorts before all of the base
    base = old("bcd", "PQR")
    assert assigned("acdz", "AQRZ", base) == ("bcdaz", [-1, 1, 2, 0, 3], "PQRAZ")


def test_a_key_that_comes_back_gets_its_id_back() -> None:
    base = old("bcd", "PQR", tombstones="c")
    assert assigned("abcd", "APQR", base) == ("bcda", [1, 2, 3, 0], "PQRA")


def test_a_key_keeps_its_id_when_its_file_changes() -> None:
    base = old("bc", "PQ")
    assert assigned("bc", "XY", base, "content") == ("bc", [0, 1], "XY")


def test_a_renamed_file_keeps_its_id_by_content_only_if_asked() -> None:
    base = old("bc", "PQ")
    assert assigned("cz", "QP", base, "content") == ("zc", [1, 0], "PQ")
    assert assigned("cz", "QP", base, "key") == ("bcz", [-1, 0, 1], "PQP")


def test_a_copy_of_a_file_that_is_still_there_is_new() -> None:
    base = old("b", "P")
    assert assigned("ab", "PP", base, "content") == ("ba", [1, 0], "PP")


def test_equal_files_are_matched_in_order() -> None:
    # b, c, d hold the same bytes and are gone; c was gone before, so it comes last
    base = old("bcd", "PPP", tombstones="c")
    assert assigned("xy", "PP", base, "content") == ("xcy", [0, -1, 1], "PPP")
    assert assigned("wxyz", "PPPP", base, "content") == ("wyxz", [0, 2, 1, 3], "PPPP")


def test_a_tombstone_that_returns_under_another_name_gets_its_id_back() -> None:
    base = old("bc", "PQ", tombstones="b")
    assert assigned("cz", "QP", base, "content") == ("zc", [1, 0], "PQ")


def test_swapped_names_follow_the_names() -> None:
    base = old("bc", "PQ")
    assert assigned("bc", "QP", base, "content") == ("bc", [0, 1], "QP")


def test_tombstones_without_recorded_contents_are_matched_by_key() -> None:
    base = Base(
        keys=["b", "c"],
        live=np.array([False, True]),
        contents=hashes(".."),
        classes=[],
        identity="",
        folder=Path(),
        manifest_sha256="",
    )
    assert assigned("cz", "QP", base, "content") == ("bcz", [-1, 0, 1], ".QP")


def test_classes_keep_their_numbers() -> None:
    assert number_classes(["ant", "bee", "cat"], []) == (["ant", "bee", "cat"], [0, 1, 2])
    assert number_classes(["ant", "bee", "cat"], ["cat", "dog", "ant"]) == (
        ["cat", "dog", "ant", "bee"],
        [2, 3, 0],
    )


def test_duplicates_are_grouped_and_the_smallest_id_stays() -> None:
    # ids:      0    1    2    3    4    5      id 2 is a tombstone of the same bytes
    found = Assignment(
        keys=list("abcdef"),
        positions=np.array([3, 4, -1, 0, 1, 2]),
        contents=hashes("PQPPQR"),
    )
    groups = duplicate_groups(found)
    assert groups == [[0, 3], [1, 4]]
    stay, repeats = without_repeats(found, groups)
    assert stay.tolist() == [2, 3, 4] and repeats == {0: "a", 1: "b"}
    table = duplicates_table(found, groups, str.upper).decode().splitlines()
    assert table == [
        "group\tid\tkey\tsha256",
        f"0\t0\tA\t{'50' * 32}",
        f"0\t3\tD\t{'50' * 32}",
        f"1\t1\tB\t{'51' * 32}",
        f"1\t4\tE\t{'51' * 32}",
    ]


def test_bases_and_splits_must_fit(color_set: Path, tmp_path: Path) -> None:
    assert list(read_bases(color_set, [""])) == [""]
    for split in ("train", "val"):
        shutil.copytree(color_set, tmp_path / split)
    assert sorted(read_bases(tmp_path, ["train", "val", "test"])) == ["train", "val"]
    with pytest.raises(ValueError, match="has splits train, val, the source has no splits"):
        read_bases(tmp_path, [""])
    with pytest.raises(ValueError, match="has no splits, the source has splits train, val"):
        read_bases(color_set, ["train", "val"])
    with pytest.raises(ValueError, match=r"src is no data set"):
        read_bases(color_set.parent / "src", [""])
    path = tmp_path / "val" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "classes": ["other"]}), encoding="utf-8")
    with pytest.raises(ValueError, match="number classes differently"):
        read_bases(tmp_path, ["train", "val"])
    (tmp_path / "train" / "keys.txt").write_text("a\n", encoding="utf-8")
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match=r"train is damaged; `coke verify"):
        read_bases(tmp_path, ["train", "val"])
