"""Points in all forms that users have, as one array of numbers (N, D).

Arrays, tensors, data frames and lists of rows become an array in memory. Batches are written one
after the other to an unnamed temporary file, since a fit reads points in random order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.feature_names import feature_names
from coke.clustering.stacked_rows import StackedRows

_SHOWN = 60  # characters of a value in a message
_COPIED = 1 << 20  # numbers of a temporary file that are converted at a time


@dataclass(frozen=True, kw_only=True)
class PointArray:
    """Points (N, D), and the names (D,) of their features.

    Attributes:
        array: real numbers of any type, in memory or mapped; they may still be NaN or infinite.
        names: names of a data frame's columns if they are texts, otherwise None.
    """

    array: NDArray[Any] | StackedRows
    names: NDArray[np.object_] | None = None


def point_array(x: Any) -> PointArray:
    """The points as one array.

    Args:
        x: an array, memmap, tensor, data frame or list of rows (N, D); or an iterable of such
            batches (B, D).

    Raises:
        ValueError: there are no points, they are no numbers, masked or sparse, or batches do not
            fit together.
        TypeError: an object is no number, or names of columns mix texts and numbers.
    """
    if isinstance(x, StackedRows):
        return PointArray(array=x)
    if _is_one_array(x):
        return PointArray(array=matrix(x, "X"), names=feature_names(x))
    if isinstance(x, str | bytes | Mapping | Set) or not isinstance(x, Iterable):
        raise ValueError(f"X has type {type(x).__name__}; give an array (N, D) or batches of such")
    return _joined(x)


def matrix(x: Any, name: str) -> NDArray[Any]:
    """Real numbers (N, D), N and D at least 1, without a copy where none is needed.

    Args:
        x: an array, tensor, data frame or list of rows.
        name: what the array is called in messages.

    Raises:
        ValueError, TypeError: as :func:`point_array`.
    """
    array = numbers(x, name)
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {array.ndim}D array instead: {name} has shape {array.shape}. "
            "Reshape your data with array.reshape(-1, 1) if it has one feature, or "
            "array.reshape(1, -1) if it is one sample"
        )
    for count, what in zip(array.shape, ("sample", "feature"), strict=True):
        if not count:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={array.shape}) while a minimum of 1 is "
                f"required: {name} is empty"
            )
    return array


def _is_one_array(x: Any) -> bool:
    if isinstance(x, Tensor) or hasattr(x, "__array__") or _is_sparse(x):
        return True
    return isinstance(x, list | tuple) and not (x and _is_batch(x[0]))


def _is_batch(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 2


def _is_sparse(x: Any) -> bool:
    return "sparse" in type(x).__module__.split(".") or hasattr(x, "tocsr")


def numbers(x: Any, name: str) -> NDArray[Any]:
    """Real numbers of any shape; see :func:`matrix`."""
    if _is_sparse(x):
        raise ValueError(
            f"{name} is a sparse {type(x).__name__}, which is not supported; use X.toarray()"
        )
    if isinstance(x, Tensor):
        array = _of_tensor(x, name)
    elif isinstance(x, list | tuple):
        array = _of_rows(x, name)
    else:
        _check_no_mask(x, name)
        array = (
            x if isinstance(x, np.memmap) else np.asarray(x)
        )  # whoever reads it must know that it is on disk
    if np.iscomplexobj(array):
        raise ValueError(f"Complex data not supported: {name} has complex numbers; give real ones")
    if array.dtype == object:
        return _of_objects(array, name, feature_names(x))
    if array.dtype.kind == "V" and array.dtype.type is not np.void:  # bfloat16 beside numpy
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has type {array.dtype}; give numbers")
    return array


def _of_tensor(x: Tensor, name: str) -> NDArray[Any]:
    if x.is_nested:
        raise ValueError(
            f"{name} is a nested tensor, whose rows may differ in length; use X.to_padded_tensor(0)"
        )
    if x.layout != torch.strided:
        raise ValueError(
            f"{name} is a sparse tensor ({x.layout}), which is not supported; use X.to_dense()"
        )
    if x.is_meta:
        raise ValueError(f"{name} is a tensor on the device 'meta', which has no values")
    x = x.detach()
    if x.is_quantized:
        x = x.dequantize()
    if x.is_floating_point() and x.dtype not in (torch.float64, torch.float32, torch.float16):
        x = x.float()  # numpy has no bfloat16
    array: NDArray[Any] = x.cpu().resolve_conj().resolve_neg().numpy()
    return array


def _of_rows(rows: Sequence[Any], name: str) -> NDArray[Any]:
    plain = []
    for row in rows:
        _check_no_mask(row, name)
        plain.append(_of_tensor(row, name) if isinstance(row, Tensor) else row)
    try:
        return np.asarray(plain)
    except ValueError as error:
        raise ValueError(
            f"{name} is a {type(rows).__name__} of rows that cannot be one array ({error}); give "
            "all rows the same number of values"
        ) from error


def _check_no_mask(x: Any, name: str) -> None:
    if not isinstance(x, np.ma.MaskedArray):
        return
    masked = np.argwhere(np.ma.getmaskarray(x))
    if len(masked):
        at = ", ".join(map(str, masked[0].tolist()))
        raise ValueError(
            f"{name} is a masked array, and {len(masked):,} of its values are masked, the first at "
            f"[{at}]; remove such rows, or fill them with filled(value)"
        )


def _of_objects(array: NDArray[Any], name: str, names: NDArray[np.object_] | None) -> NDArray[Any]:
    """Python objects as float64; NaN for missing ones, None and pandas' NA."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    numbers = np.empty(array.shape, dtype=np.float64)
    for index, value in np.ndenumerate(array):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            numbers[index] = np.nan
            continue
        try:
            numbers[index] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            place = f"row {index[0]}" if index else "it"
            if len(index) > 1:
                column = index[1] if names is None else repr(names[index[1]])
                place += f", column {column}"
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"{name} has {_short(value)} in {place}, which is no number ({error}); give "
                "numbers, or leave the column out"
            ) from error
    return numbers


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _joined(batches: Iterable[Any]) -> PointArray:
    """Batches in a temporary file without a name, which vanishes with its memory map."""
    spool: _Spool | None = None
    names: NDArray[np.object_] | None = None
    for number, batch in enumerate(batches):
        what = f"batch {number} of X"
        if isinstance(batch, str | bytes | Mapping | Set):
            raise ValueError(f"{what} has type {type(batch).__name__}; give an array (B, D)")
        if isinstance(batch, list | tuple) and batch and _is_batch(batch[0]):
            raise ValueError(
                f"{what} is a {type(batch).__name__} of {len(batch)} array(s); give the points "
                "alone, such as (batch[0] for batch in loader)"
            )
        array = matrix(batch, what)
        found = feature_names(batch)
        if spool is None:
            spool, names = _Spool(array.shape[1], array.dtype), found
        elif array.shape[1] != spool.width:
            raise ValueError(
                f"batch {number} has {array.shape[1]} features, those before have {spool.width}: "
                "all batches need the same width"
            )
        elif (names is None) != (found is None) or (
            names is not None and found is not None and names.tolist() != found.tolist()
        ):
            raise ValueError(
                f"batch {number} has other feature names, or another order of them, than those "
                "before: give all batches the same columns"
            )
        spool.append(array)
    if spool is None:
        raise ValueError("Found array with 0 sample(s): the iterator gave no batch")
    return PointArray(array=spool.finished(), names=names)


class _Spool:
    """Rows in a temporary file: float32, or float64 once a batch needs more digits."""

    def __init__(self, width: int, dtype: np.dtype[Any]) -> None:
        self.width, self.rows = width, 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (its map outlives it)
        self._dtype = float_type(dtype)

    def append(self, rows: NDArray[Any]) -> None:
        wider = np.promote_types(self._dtype, float_type(rows.dtype))
        if wider != self._dtype:
            self._widen(wider)
        np.ascontiguousarray(rows, dtype=self._dtype).tofile(self._file)
        self.rows += len(rows)

    def finished(self) -> NDArray[Any]:
        """All rows (N, D), as a memory map that keeps the file."""
        array = self._mapped()
        self._file.close()
        return array

    def _mapped(self) -> NDArray[Any]:
        self._file.flush()
        shape = (self.rows, self.width)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=shape)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        old, file = self._mapped(), tempfile.TemporaryFile()  # noqa: SIM115
        step = max(1, _COPIED // self.width)
        for start in range(0, self.rows, step):
            old[start : start + step].astype(dtype).tofile(file)
        self._file.close()
        self._file, self._dtype = file, dtype


def float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The narrower of float32 and float64 that holds such numbers exactly."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)
