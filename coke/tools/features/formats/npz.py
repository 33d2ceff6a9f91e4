"""`.npz`: an archive of arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from coke.files.npy_rows import read_header
from coke.tools.features.formats.feature_file import FeatureFile, check_ids, check_matrix
from coke.tools.features.formats.members import IDS, chosen_member


class NpzFile(FeatureFile):
    """A member of an archive of arrays, read as a stream.

    Args:
        key: the member; if None, ``features`` or the only member of shape (N, D).

    Raises:
        ValueError: the file is no such archive, has no such member, or several are possible.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        shapes: dict[str, tuple[int, ...]] = {}
        headers = {}
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                for name in names:
                    with archive.open(f"{name}.npy") as file:
                        headers[name] = read_header(file, f"{path}, member {name!r},")
                    shapes[name] = headers[name][0]
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(
                f"{path} is no .npz file ({error}); write it with np.savez(file, features=x)"
            ) from error
        self._member = chosen_member(path, shapes, key)
        shape, by_columns, dtype = headers[self._member]
        self.what = f"member {self._member!r}"
        check_matrix(f"{path}, {self.what},", shape, dtype)
        if by_columns:
            raise ValueError(
                f"{path}, {self.what}, is stored column by column (Fortran order), which cannot be "
                "read in batches of rows; save np.ascontiguousarray(x)"
            )
        (self.rows, self.width), self.dtype = shape, dtype.name
        if IDS in shapes and self._member != IDS:
            of = f"{path}, member {IDS!r},"
            check_ids(of, shapes[IDS], headers[IDS][2], self.rows, self.what)
            self.has_keys = headers[IDS][2].kind == "U"
            self.has_ids = not self.has_keys

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        return self._stream(self._member, size)

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        return self._stream(IDS, size)

    def keys(self, size: int) -> Iterator[list[str]]:
        return (batch.tolist() for batch in self._stream(IDS, size))

    def _stream(self, member: str, size: int) -> Iterator[NDArray[Any]]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{member}.npy") as file:
                shape, _, dtype = read_header(file, f"{self.path}, member {member!r},")
                row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
                for start in range(0, shape[0], size):
                    count = min(size, shape[0] - start)
                    data = _exactly(file, count * row_bytes, self.path, start)
                    yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path} is damaged ({error}); write it again") from error


def _exactly(file: IO[bytes], count: int, path: Path, row: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"{path} is cut short near row {row:,}; write or copy it again")
    return data
