"""Lists of ids: read from a file, checked, and what each mistake is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coke.pipeline.dataset.chosen_ids import checked_ids, hash_of_ids, read_ids
from coke.pipeline.dataset.index import ImageIndex

DEAD = np.array([2, 5])

#: Ids of a data set of 8 whose ids 2 and 5 have no image, and what is wrong with them.
BAD: list[tuple[Any, str]] = [
    (np.array([1, 3, 1]), "has id 1 more than once; give every id once"),
    (np.array([1, -4, -3]), "has id -4, but the ids of set are 0 to 7"),
    (np.array([0, 8, 9]), "has id 9, but the ids of set are 0 to 7"),
    (np.array([2**63], dtype=np.uint64), f"has id {2**63}, but the ids of set are 0 to 7"),
    (np.array([0, 2]), "has id 2, which has no image in set; leave out ids whose"),
    (np.array([5, 2, 7]), "has id 2, which has no image in set, as 1 others; leave out"),
    (np.array([1.0, 2.0]), "has values of type float64; ids are whole numbers"),
    (np.array([True, False]), "has values of type bool; ids are whole numbers"),
    (np.array(["1", "2"]), "has values of type <U1; ids are whole numbers"),
    (np.array([], dtype=np.int64), "is empty; give at least one id"),
    (np.array([[0, 1]]), r"has shape \(1, 2\); give a list of ids"),
    (np.array(3), r"has shape \(\); give a list of ids"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_ids_that_no_data_set_has(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^mine {message}"):
        checked_ids(given, 8, DEAD, name="mine", data="set")


@pytest.mark.parametrize("dtype", ["uint8", "int32", ">i4", "uint64"])
def test_any_type_and_order_gives_the_same_ids(dtype: str) -> None:
    ids = checked_ids(np.array([7, 0, 4], dtype=dtype), 8, DEAD, name="mine", data="set")
    assert ids.dtype == np.int64 and ids.tolist() == [0, 4, 7]
    assert hash_of_ids(ids) == hash_of_ids(checked_ids([4, 7, 0], 8, DEAD, name="", data=""))
    assert hash_of_ids(ids) != hash_of_ids(np.array([0, 4, 6]))


def test_files_that_are_no_list_of_ids(tmp_path: Path) -> None:
    text, archive, cut = tmp_path / "ids.txt", tmp_path / "ids.npz", tmp_path / "cut.npy"
    text.write_text("1\n2\n", encoding="utf-8")
    np.savez(archive, ids=np.arange(3))
    np.save(cut, np.arange(99))
    cut.write_bytes(cut.read_bytes()[:200])
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([1, None]), allow_pickle=True)
    for path, message in (
        (text, "is no .npy file; give a .npy file of ids, as numpy.save writes it"),
        (archive, "is no .npy file"),
        (cut, "cannot be read"),
        (objects, "cannot be read"),
        (tmp_path / "none.npy", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
    ):
        with pytest.raises(ValueError, match="^--ids") as error:
            read_ids(path)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_a_subset_is_a_view_whose_ids_stay(folder: Path, tmp_path: Path) -> None:
    whole = ImageIndex(folder)
    view = whole.subset(np.array([2, 0]))
    assert (len(view), view.n_live, view.identity) == (3, 2, whole.identity)
    assert view.live_ids is not None and view.live_ids.tolist() == [0, 2]
    assert view.dead_ids.tolist() == [1]
    assert view.subset_sha256 == hash_of_ids(np.array([0, 2])) and whole.subset_sha256 is None
    np.save(tmp_path / "kept.npy", np.array([0, 2]))
    assert whole.subset(tmp_path / "kept.npy").subset_sha256 == view.subset_sha256
    less = view.without(np.array([0, 1]))  # of an evaluation: images without a label are left out
    assert less.live_ids is not None and less.live_ids.tolist() == [2]
    assert (less.n_live, less.subset_sha256) == (1, view.subset_sha256)
    assert (whole.n_live, whole.live_ids) == (3, None)
    with pytest.raises(ValueError, match=r"ids has id 1, which has no image in .*set"):
        view.subset([1])
