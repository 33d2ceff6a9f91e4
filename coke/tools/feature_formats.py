"""One file of features, N rows of width D: `.npy`, `.npz`, parquet or safetensors.

Opening reads the header. Rows come in batches, in order, so no file needs to fit in memory.
"""

from __future__ import annotations

import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coke.tools.npy_rows import read_header

if TYPE_CHECKING:
    import pyarrow as pa

IDS = "ids"  # the member of an .npz or .safetensors file that numbers its rows
_USUAL = "features"  # the member that is meant where several could be
_ID_COLUMNS = ("id", "key")
_NUMBERED = re.compile(r"(.*?)(\d+)")
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LISTED = 12  # names in a message


class FeatureFile(ABC):
    """Features (N, D) in a file.

    Attributes:
        path: the file.
        rows, width: N and D.
        dtype: name of the numbers' type.
        what: the part of the file that is read; empty where it is all.
        has_ids: rows are numbered by whole numbers, in the file.
        has_keys: rows are named by text, in the file.
    """

    rows: int
    width: int
    dtype: str
    what: str = ""
    has_ids: bool = False
    has_keys: bool = False

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        """Rows (B, D), B <= size, in order.

        Raises:
            ValueError: rows that are missing or of another width.
        """

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        """Whole numbers (B,), where ``has_ids``."""
        raise NotImplementedError

    def keys(self, size: int) -> Iterator[list[str]]:
        """Texts, where ``has_keys``."""
        raise NotImplementedError


class NpyFile(FeatureFile):
    """An array, memory-mapped.

    Raises:
        ValueError: no array of numbers (N, D), or a file that is cut short.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        shape, self.by_columns, dtype = _header_of(path)
        _check_matrix(f"{path}", shape, dtype)
        self.rows, self.width = shape
        self.dtype = dtype.name

    @property
    def array(self) -> NDArray[Any]:
        """All rows, as a memory map."""
        mapped: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        array = self.array
        for start in range(0, self.rows, size):
            yield array[start : start + size]


class NpyIds:
    """``ids.npy``: whole numbers or texts (N,), one per row.

    Raises:
        ValueError: another number of them, or something else.
    """

    def __init__(self, path: Path, rows: int, of: Path) -> None:
        self.path = path
        shape, _, dtype = _header_of(path)
        _check_ids(f"{path}", shape, dtype, rows, f"{of}")
        self.is_text = dtype.kind == "U"

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(array), size):
            yield np.asarray(array[start : start + size])


class NpzFile(FeatureFile):
    """A member of an archive of arrays, read as a stream.

    Args:
        key: the member; where None, ``features``, or the only one of shape (N, D).

    Raises:
        ValueError: not such an archive, no such member, or several that could be meant.
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
        self._member = _chosen_member(path, shapes, key)
        shape, by_columns, dtype = headers[self._member]
        self.what = f"member {self._member!r}"
        _check_matrix(f"{path}, {self.what},", shape, dtype)
        if by_columns:
            raise ValueError(
                f"{path}, {self.what}, is stored column by column (Fortran order), which cannot be "
                "read in batches of rows; save np.ascontiguousarray(x)"
            )
        (self.rows, self.width), self.dtype = shape, dtype.name
        if IDS in shapes and self._member != IDS:
            of = f"{path}, member {IDS!r},"
            _check_ids(of, shapes[IDS], headers[IDS][2], self.rows, self.what)
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


class ParquetFile(FeatureFile):
    """A table: a column of lists, or a column per dimension.

    Columns of numbers with a common name and a number (``f0``, ``f1``, ...) are dimensions in the
    order of these numbers; without such, all columns of floating-point numbers are. Rows are
    numbered or named by columns ``id`` and ``key``.

    Args:
        key: the column of lists, or the common name of the columns.

    Raises:
        ValueError: no parquet file, no such columns, several that could be meant, or no pyarrow.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ValueError(
                f"reading {path} needs pyarrow: pip install 'coke[parquet]'"
            ) from error
        try:
            with pq.ParquetFile(path) as table:
                schema, self.rows = table.schema_arrow, table.metadata.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"{path} is no parquet file ({_first_line(error)}); write it again"
            ) from error
        if not self.rows:
            raise ValueError(f"{path} has no rows; leave it out")
        numbers = next((c for c in _ID_COLUMNS if _is_whole(schema, c)), None)
        texts = next((c for c in _ID_COLUMNS if _is_text(schema, c)), None)
        self._ids, self._keys = numbers, texts
        self.has_ids, self.has_keys = numbers is not None, texts is not None
        self._columns = _chosen_columns(path, schema, key)
        first = schema.field(self._columns[0]).type
        self._is_list = _is_list(first)
        number = first.value_type if self._is_list else first
        self.dtype = np.dtype(number.to_pandas_dtype()).name
        self.what = f"column {self._columns[0]!r}"
        if not self._is_list:
            self.width = len(self._columns)
            self.what = f"{self.width} columns {self._columns[0]} to {self._columns[-1]}"
            for column in self._columns:
                if schema.field(column).type != first:
                    raise ValueError(
                        f"{path} has column {self._columns[0]} of {first} and column {column} of "
                        f"{schema.field(column).type}; give all dimensions one type"
                    )
        elif pa.types.is_fixed_size_list(first):
            self.width = first.list_size
        else:
            (value,) = next(self._read([self._columns[0]], 1))
            lengths = value.value_lengths()
            self.width = lengths[0].as_py() or 0
        if not self.width:
            raise ValueError(
                f"{path}, {self.what}, has an empty list in row 0; leave such rows out"
            )

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        start = 0
        for columns in self._read(self._columns, size):
            yield self._matrix(columns, start)
            start += len(columns[0])

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        assert self._ids is not None
        for (column,) in self._read([self._ids], size):
            self._check_whole_column(column, self._ids)
            yield column.to_numpy(zero_copy_only=False)

    def keys(self, size: int) -> Iterator[list[str]]:
        assert self._keys is not None
        for (column,) in self._read([self._keys], size):
            self._check_whole_column(column, self._keys)
            yield column.to_pylist()

    def _read(self, columns: list[str], size: int) -> Iterator[list[pa.Array]]:
        """Columns of batches; a row group is not read at once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as table:
                for batch in table.iter_batches(batch_size=size, columns=columns):
                    yield [batch.column(name) for name in columns]
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{self.path} is damaged ({_first_line(error)}); write it again"
            ) from error

    def _check_whole_column(self, column: pa.Array, name: str) -> None:
        if column.null_count:
            raise ValueError(
                f"{self.path}, column {name!r}, has rows without a value; fill them, or leave the "
                "column out"
            )

    def _matrix(self, columns: list[pa.Array], start: int) -> NDArray[Any]:
        if not self._is_list:
            for name, column in zip(self._columns, columns, strict=True):
                if column.null_count:
                    row = start + column.is_null().to_numpy(zero_copy_only=False).argmax()
                    raise ValueError(
                        f"{self.path} has no value in row {row} of column {name}; leave the row out"
                    )
            return np.stack([c.to_numpy(zero_copy_only=False) for c in columns], axis=1)
        (lists,) = columns
        missing = lists.is_null().to_numpy(zero_copy_only=False)
        if missing.any():
            raise ValueError(
                f"{self.path}, {self.what}, has no list in row {start + missing.argmax()}; leave "
                "the row out"
            )
        lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths != self.width).any():
            row = (lengths != self.width).argmax()
            raise ValueError(
                f"{self.path}, {self.what}, has {lengths[row]} numbers in row {start + row}, "
                f"{self.width} in row 0: all rows need the same width"
            )
        values = lists.flatten()
        if values.null_count:
            row = values.is_null().to_numpy(zero_copy_only=False).argmax() // self.width
            raise ValueError(
                f"{self.path}, {self.what}, has a number missing in row {start + row}; leave the "
                "row out"
            )
        matrix: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(-1, self.width)
        return matrix


class SafetensorsFile(FeatureFile):
    """A tensor of a safetensors file, read by slices.

    Args:
        key: the tensor; where None, ``features``, or the only one of shape (N, D).

    Raises:
        ValueError: no such file or tensor, several that could be meant, or no ``safetensors``.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError as error:
            raise ValueError(
                f"reading {path} needs safetensors: pip install 'coke[safetensors]'"
            ) from error
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                dtypes = {name: part.get_dtype() for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(
                f"{path} is no safetensors file ({_first_line(error)}); write it again"
            ) from error
        self._member = _chosen_member(path, shapes, key)
        self.what = f"tensor {self._member!r}"
        stored, shape = dtypes[self._member], shapes[self._member]
        if stored.startswith("C"):
            raise ValueError(f"{path}, {self.what}, has type {stored}; give real numbers")
        self.dtype = _TYPES.get(stored, stored)
        _check_matrix(f"{path}, {self.what},", shape, np.dtype(np.float32))
        self.rows, self.width = shape
        if IDS in shapes and self._member != IDS:
            whole = np.dtype(np.int64 if dtypes[IDS].startswith(("I", "U")) else np.float32)
            of = f"{path}, tensor {IDS!r},"
            _check_ids(of, shapes[IDS], whole, self.rows, self.what)
            self.has_ids = True

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        for part in self._slices(self._member, size):
            yield part.float().numpy()

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        for part in self._slices(IDS, size):
            yield part.numpy()

    def _slices(self, name: str, size: int) -> Iterator[Any]:
        from safetensors import safe_open

        with ExitStack() as stack:
            file = stack.enter_context(safe_open(self.path, framework="pt"))
            part = file.get_slice(name)
            for start in range(0, self.rows, size):
                yield part[start : min(start + size, self.rows)]


def open_feature_file(path: Path, key: str | None) -> FeatureFile:
    """A file by its suffix, which is one of :data:`SUFFIXES`.

    Raises:
        ValueError: it cannot be read as that; the message names it.
    """
    if path.suffix == ".npy":
        if key is not None:
            raise ValueError(f"--key {key} names a part of a file; {path} holds one array: omit it")
        return NpyFile(path)
    kinds: dict[str, type[NpzFile] | type[ParquetFile] | type[SafetensorsFile]] = {
        ".npz": NpzFile, ".parquet": ParquetFile, ".safetensors": SafetensorsFile
    }  # fmt: skip
    return kinds[path.suffix](path, key)


SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors")


def _header_of(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with path.open("rb") as file:
        shape, by_columns, dtype = read_header(file, f"{path}")
        needed = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    found = path.stat().st_size
    if found < needed:
        raise ValueError(
            f"{path} is cut short: {found:,} bytes of {needed:,}; write or copy it again"
        )
    return shape, by_columns, dtype


def _check_matrix(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiub":
        raise ValueError(f"{name} has type {dtype}; give real numbers, such as float32")
    if len(shape) != 2:
        hint = "one row per point: x.reshape(len(x), -1)" if shape else "an array (N, D)"
        if len(shape) == 1:
            hint = "x.reshape(-1, 1) if these are points of one feature"
        raise ValueError(f"{name} has shape {shape}, features are (N, D); save {hint}")
    if not shape[0] or not shape[1]:
        raise ValueError(f"{name} has shape {shape}: there is nothing to cluster; write it again")


def _check_ids(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, of: str) -> None:
    if dtype.kind not in "iuU":
        raise ValueError(f"{name} has type {dtype}; ids are whole numbers or texts")
    if shape != (rows,):
        raise ValueError(
            f"{name} has shape {shape}, but {of} has {rows:,} rows: give one id per row, or move "
            "it away"
        )


def _chosen_member(path: Path, shapes: dict[str, tuple[int, ...]], key: str | None) -> str:
    listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:_LISTED])
    if key is not None:
        if key not in shapes:
            raise ValueError(f"{path} has no {key!r} (--key); it holds {listed or 'nothing'}")
        return key
    if _USUAL in shapes:
        return _USUAL
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    if len(shapes) == 1:
        return next(iter(shapes))  # of a wrong shape, which is then said
    if not matrices:
        raise ValueError(f"{path} holds no array (N, D), only {listed or 'nothing'}; save one")
    raise ValueError(f"{path} holds several arrays (N, D): {listed}; choose one with --key NAME")


def _chosen_columns(path: Path, schema: pa.Schema, key: str | None) -> list[str]:
    listed = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:_LISTED])
    if len(schema) > _LISTED:
        listed += ", ..."
    lists = [field.name for field in schema if _is_list(field.type)]
    plain = [field.name for field in schema if _is_number(field.type)]
    families: dict[str, list[tuple[int, str]]] = {}
    for name in plain:
        if (match := _NUMBERED.fullmatch(name)) and name not in _ID_COLUMNS:
            families.setdefault(match[1], []).append((int(match[2]), name))
    if key is not None:
        if key in lists:
            return [key]
        if key in families:
            return [name for _, name in sorted(families[key])]
        raise ValueError(
            f"{path} has no column of lists {key!r}, nor numbered columns {key}0, {key}1, ... "
            f"(--key); its columns are {listed}"
        )
    if len(lists) == 1:
        return lists
    if _USUAL in lists:
        return [_USUAL]
    if len(lists) > 1:
        raise ValueError(f"{path} has several columns of lists: {listed}; choose one with --key")
    if len(families) == 1:
        return [name for _, name in sorted(next(iter(families.values())))]
    if len(families) > 1:
        raise ValueError(
            f"{path} has several families of numbered columns: "
            + ", ".join(f"{name}... ({len(found)})" for name, found in families.items())
            + "; choose one with --key NAME"
        )
    floating = [name for name in plain if _is_floating(schema.field(name).type)]
    if not floating:
        raise ValueError(
            f"{path} has no column of lists and no columns of floating-point numbers; its columns "
            f"are {listed}"
        )
    return floating


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or _is_floating(kind)


def _is_floating(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind))


def _is_whole(schema: pa.Schema, column: str) -> bool:
    import pyarrow as pa

    return column in schema.names and pa.types.is_integer(schema.field(column).type)


def _is_text(schema: pa.Schema, column: str) -> bool:
    import pyarrow as pa

    if column not in schema.names:
        return False
    kind = schema.field(column).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _exactly(file: IO[bytes], count: int, path: Path, row: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"{path} is cut short near row {row:,}; write or copy it again")
    return data


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
