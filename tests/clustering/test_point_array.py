"""Points in every form that people hold them: one array, or one clear refusal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke.clustering.point_array import matrix, point_array

X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def array_of(x: Any) -> NDArray[Any]:
    array = point_array(x).array
    assert isinstance(array, np.ndarray)
    return array


TAKEN: dict[str, Any] = {
    "array": X,
    "not contiguous": np.asfortranarray(X),
    "every second row of a larger array": np.repeat(X, 2, axis=0)[::2],
    "whole numbers": X.astype(np.int16),
    "objects": X.astype(object),
    "texts of numbers as objects": X.astype(str).astype(object),
    "float16": X.astype(np.float16),
    "masked array without a mask": np.ma.MaskedArray(X),
    "masked array with nothing masked": np.ma.MaskedArray(X, mask=np.zeros_like(X, dtype=bool)),
    "list of lists": X.tolist(),
    "tuple of tuples": tuple(map(tuple, X.tolist())),
    "list of arrays": list(X),
    "tensor": torch.from_numpy(X),
    "bfloat16": torch.from_numpy(X).bfloat16(),
    "float16 tensor": torch.from_numpy(X).half(),
    "with a gradient": torch.from_numpy(X).clone().requires_grad_(),
    "transposed tensor": torch.from_numpy(X.T.copy()).T,
    "lazily negated tensor": torch.complex(torch.zeros(4, 3), -torch.from_numpy(X)).conj().imag,
    "list of tensors": list(torch.from_numpy(X).bfloat16()),
    "batches": [X[:3], torch.from_numpy(X[3:]).bfloat16()],
    "a generator of batches": (X[i : i + 2] for i in (0, 2)),
    "batches of lists": iter([X[:1].tolist(), X[1:].tolist()]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_every_form_gives_the_same_points(name: str) -> None:
    assert np.array_equal(array_of(TAKEN[name]), X)


def test_booleans_are_numbers() -> None:
    assert np.array_equal(array_of(X > 6).astype(int), (X > 6).astype(int))


def test_an_array_is_not_copied(tmp_path: Path) -> None:
    assert array_of(X) is X
    np.save(tmp_path / "x.npy", X)
    assert isinstance(array_of(np.load(tmp_path / "x.npy", mmap_mode="r")), np.memmap)
    assert np.shares_memory(array_of(torch.from_numpy(X)), X)


def test_batches_of_float64_keep_their_digits() -> None:
    """UTM metres: float32 would round them to a quarter of a metre."""
    far = X.astype(np.float64) + 4_000_000.125
    assert np.array_equal(array_of(iter([far[:2], far[2:]])), far)
    # The first batch is float32: what is written is converted when the second needs more digits.
    mixed = array_of(iter([X[:2], far[2:]]))
    assert mixed.dtype == np.float64
    assert np.array_equal(mixed, np.concatenate([X[:2], far[2:]]))
    assert array_of(iter([X[:2], X[2:].astype(np.uint8)])).dtype == np.float32


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_the_map_of_batches_outlives_its_file() -> None:
    array = array_of(iter([X] * 100))
    assert isinstance(array, np.memmap) and array.shape == (400, 3)
    assert np.array_equal(array[-4:], X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], "Expected 2D array, got 1D array instead: X has shape (3,)"),
        (np.float32(3), "Expected 2D array, got 0D array"),
        (torch.zeros(2, 3, 2, 2), "got 4D array instead: X has shape (2, 3, 2, 2)"),
        (X[:0], "Found array with 0 sample(s) (shape=(0, 3))"),
        (X[:, :0], "Found array with 0 feature(s) (shape=(4, 0))"),
        ([], "Expected 2D array, got 1D array"),
        ([[1.0, 2.0], [3.0]], "X is a list of rows that cannot be one array"),
        (X.astype(complex), "Complex data not supported: X has complex numbers"),
        (np.array([["a", "b"]]), "X has type <U1; give numbers"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "X has type datetime64[D]; give numbers"),
        (torch.from_numpy(X).to_sparse(), "X is a sparse tensor (torch.sparse_coo)"),
        (torch.from_numpy(X).to_sparse_csr(), "X is a sparse tensor (torch.sparse_csr)"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "X is a nested tensor"),
        (torch.zeros(2, 3, device="meta"), "X is a tensor on the device 'meta'"),
        ({"features": X}, "X has type dict; give an array (N, D) or batches"),
        ("x.npy", "X has type str; give an array"),
        (7, "X has type int; give an array"),
        (None, "X has type NoneType; give an array"),
        (iter(()), "the iterator gave no batch"),
        (iter([X, X[:, :2]]), "batch 1 has 2 features, those before have 3"),
        (iter([X, X[0]]), "got 1D array instead: batch 1 of X has shape (3,)"),
        (iter([X, {"x": X}]), "batch 1 of X has type dict; give an array (B, D)"),
        (iter([[torch.zeros(2, 3)]]), "batch 0 of X is a list of 1 array(s); give the points al"),
        (iter([(X, X[:, 0])]), "batch 0 of X is a tuple of 2 array(s)"),
        (np.ma.MaskedArray(X, X == 8), "1 of its values are masked, the first at [2, 1]"),
        ([np.ma.MaskedArray(X[0], X[0] == 1), X[1]], "masked, the first at [0]"),
        (iter([X, np.ma.MaskedArray(X, X > 6)]), "batch 1 of X is a masked array, and 6 of its"),
        (
            np.array([[1.0, "a"]], dtype=object),
            "X has 'a' in row 0, column 1, which is no number (could not convert string to float",
        ),
        ([[1.0, 10**400]], "in row 0, column 1, which is no number (int too large to convert to"),
    ],
)
def test_what_is_refused_is_named(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        point_array(x)
    assert "\n" not in str(error.value)


def test_sparse_matrices_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="makes sparse matrices")
    for made in (sparse.csr_matrix, sparse.csr_array, sparse.coo_array):
        with pytest.raises(ValueError, match=r"X is a sparse .*use X\.toarray\(\)"):
            point_array(made(X))


def test_an_object_that_is_no_number_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"X has \{'a': 1\} in row 1, column 0, which is no number"):
        point_array(np.array([[1.0], [{"a": 1}]], dtype=object))


def test_missing_objects_are_nan() -> None:
    found = matrix(np.array([[1, None], [np.int8(2), np.float64(3)]], dtype=object), "X")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[1, np.nan], [2, 3]])


def test_pandas_frames() -> None:
    pd = pytest.importorskip("pandas", reason="makes data frames")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    given = point_array(frame)
    assert np.array_equal(np.asarray(given.array), X)
    assert given.names is not None and given.names.tolist() == ["a", "b", "c"]
    nullable = frame.astype("Int64")
    assert np.array_equal(array_of(nullable), X)
    nullable.iloc[2, 1] = pd.NA
    assert np.isnan(array_of(nullable)[2, 1])
    with pytest.raises(ValueError, match="X has 'x' in row 0, column 'city'"):
        point_array(frame.assign(city=list("xyzw")))
    with pytest.raises(TypeError, match="X has .*2020.* in row 0, column 'day'"):
        point_array(frame.assign(day=pd.Timestamp("2020-01-01")))
    with pytest.raises(ValueError, match="got 1D array"):
        point_array(frame["a"])
    assert point_array(pd.DataFrame(X)).names is None, "numbers are no names"
    with pytest.raises(TypeError, match=r"only supported if all input features have string names"):
        point_array(pd.DataFrame(X, columns=["a", 1, "c"]))
    halves = point_array(iter([frame[:2], frame[2:]]))
    assert halves.names is not None and halves.names.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="batch 1 has other feature names, or another order"):
        point_array(iter([frame[:2], frame[["c", "b", "a"]]]))


def test_polars_frames() -> None:
    columns = {name: X[:, j] for j, name in enumerate("abc")}
    pl = pytest.importorskip("polars", reason="makes polars frames")
    given = point_array(pl.DataFrame(columns))
    assert np.array_equal(np.asarray(given.array), X)
    assert given.names is not None and given.names.tolist() == ["a", "b", "c"]
    missing = pl.DataFrame({"a": [1, None, 3]})
    assert np.isnan(array_of(missing)[1, 0])


def test_arrow_tables() -> None:
    pa = pytest.importorskip("pyarrow", reason="makes tables")
    given = point_array(pa.table({name: X[:, j] for j, name in enumerate("abc")}))
    assert np.array_equal(np.asarray(given.array), X)
    assert given.names is not None and given.names.tolist() == ["a", "b", "c"]
