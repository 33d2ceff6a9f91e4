"""`.npy` files written by rows equal those that numpy writes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from coke.files.npy_rows import NpyRows, read_header

ROWS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def test_rows_written_one_after_the_other_are_numpys_file(tmp_path: Path) -> None:
    with NpyRows(tmp_path / "rows.npy", ROWS.shape, np.float32) as file:
        file.append(ROWS[:1])
        file.append(ROWS[1:1])
        file.append(np.asfortranarray(ROWS[1:].astype(np.float64)))
        file.flush()
    np.save(tmp_path / "whole.npy", ROWS)
    assert np.load(tmp_path / "rows.npy").tolist() == ROWS.tolist()
    with (tmp_path / "rows.npy").open("rb") as mine, (tmp_path / "whole.npy").open("rb") as whole:
        assert read_header(mine, "rows.npy") == read_header(whole, "whole.npy")
        assert mine.read() == whole.read()


def test_an_interrupted_file_is_continued_after_the_rows_that_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    file = NpyRows(path, ROWS.shape, np.float32)
    file.append(ROWS[:2])
    file.append(-ROWS[2:3])
    file.close()
    with NpyRows(path, ROWS.shape, np.float32, done=2) as file:
        assert file.rows == 2
        file.append(ROWS[2:])
    assert np.load(path).tolist() == ROWS.tolist()


def test_a_file_that_is_closed_too_early_is_a_defect(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="every row was written"),
        NpyRows(tmp_path / "rows.npy", (2, 1), np.int8) as file,
    ):
        file.append(np.zeros((1, 1), np.int8))


def test_headers_are_read_without_data(tmp_path: Path) -> None:
    for array, fortran in ((np.zeros((5, 2)), False), (np.zeros((5, 2), order="F"), True)):
        data = io.BytesIO()
        np.save(data, array)
        data.seek(0)
        assert read_header(data, "x") == ((5, 2), fortran, np.dtype(np.float64))
        assert len(data.read()) == 80


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"x.npy is no .npy file \("),
        (b"PK\x03\x04 a zip", r"x.npy is no .npy file \(.*np.save"),
        (b"\x93NUMPY\x09\x00", r"x.npy is no .npy file \(format version \(9, 0\)"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_header(io.BytesIO(data), "x.npy")


def test_pickled_objects_are_refused() -> None:
    data = io.BytesIO()
    np.save(data, np.array([{}, None]), allow_pickle=True)
    data.seek(0)
    with pytest.raises(ValueError, match="x.npy holds pickled Python objects.*could run code"):
        read_header(data, "x.npy")
