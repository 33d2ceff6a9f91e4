"""Pickles of arrays that need nothing of a particular numpy."""

from __future__ import annotations

import pickle
import pickletools

import numpy as np

from coke.tools.export.formats.array_pickle import pickled


def test_arrays_come_back_with_shape_type_and_values() -> None:
    given = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.empty((0, 4), dtype=np.float16),
        "big-endian": np.array([1, 2], dtype=">i2"),
        "text": "coke",
        "flag": True,
    }
    found = pickle.loads(pickled(given))
    assert list(found) == list(given)
    for name in ("matrix", "scalar", "empty", "big-endian"):
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == given[name].dtype  # type: ignore[attr-defined]
        assert found[name].shape == given[name].shape  # type: ignore[attr-defined]
        assert np.array_equal(found[name], given[name])  # type: ignore[arg-type]
    assert found["text"] == "coke" and found["flag"] is True


def test_arrays_may_be_written_to() -> None:
    (found,) = pickle.loads(pickled([np.zeros(2)]))
    found += 1
    assert found.tolist() == [1.0, 1.0]


def test_a_reader_needs_the_class_of_arrays_and_no_function_of_one_numpy() -> None:
    written = pickled({"a": np.zeros((2, 2), dtype=np.float32), "b": np.array(1)})
    strings: list[str] = []
    needed = set()
    for operation, argument, _ in pickletools.genops(written):
        if operation.name == "STACK_GLOBAL":
            needed.add((strings[-2], strings[-1]))
        if isinstance(argument, str):
            strings.append(argument)
    assert needed == {("numpy", "ndarray"), ("builtins", "bytearray")}
    assert pickletools.genops(written).__next__()[1] == 4  # protocol of Python 3.4
