"""`.npy` files of any size: reading the header, and writing rows one after the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from coke.files.durable import flush


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's (columns first), and dtype. Nothing is unpickled.

    Args:
        file: an open file at its start; afterwards it is at its data.
        name: name of the file for messages.

    Raises:
        ValueError: it is no `.npy` file, or its data is pickled.
    """
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}, 1.0 and 2.0 are known")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise ValueError(
            f"{name} is no .npy file ({reason}); write it with np.save(file, x, allow_pickle=False)"
        ) from error
    if dtype.hasobject:
        raise ValueError(
            f"{name} holds pickled Python objects, which are not read: they could run code; save "
            "an array of numbers, such as np.save(file, np.stack(x).astype('float32'))"
        )
    return shape, fortran, dtype


class NpyRows:
    """A ``.npy`` file of known shape that is written row by row, and may be continued.

    It is no memory map: with one, a full disk would end the process by a signal. Here it is an
    OSError.

    Args:
        path: the file.
        shape: shape of the whole array, rows first.
        dtype: dtype of the whole array.
        done: number of rows to keep, which this class has written; later rows are cut off.

    Raises:
        OSError: the disk refuses, or ``done`` is above 0 and there is no file.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: DTypeLike, *, done: int = 0
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.rows = done
        self._path = path
        self._file = path.open("r+b" if done else "wb")
        header = {
            "descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape
        }  # fmt: skip
        npy.write_array_header_1_0(self._file, header)
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._file.seek(done * row_bytes, os.SEEK_CUR)
        self._file.truncate()

    def append(self, rows: NDArray[Any]) -> None:
        """Writes the next rows (n, *shape[1:]), converted to the file's dtype."""
        assert rows.shape[1:] == self.shape[1:] and self.rows + len(rows) <= self.shape[0]
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())
        self.rows += len(rows)

    def flush(self) -> None:
        """Makes all rows so far survive a power cut."""
        self._file.flush()
        flush(self._path)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> NpyRows:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        assert kind is not None or self.rows == self.shape[0], "every row was written"
