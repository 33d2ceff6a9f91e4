"""Parquet: a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coke.tools.features.formats.feature_file import FeatureFile, first_line
from coke.tools.features.formats.parquet_columns import (
    ID_COLUMNS,
    chosen_columns,
    is_list,
    is_text,
    is_whole,
)

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetFile(FeatureFile):
    """A table whose features are one column of lists, or a column per dimension.

    Numeric columns with a common name and a number (``f0``, ``f1``, ...) are the dimensions, in the
    order of these numbers. Without them, all columns of floating-point numbers are the dimensions.
    Columns ``id`` and ``key`` hold the ids and keys of the rows.

    Args:
        key: the column of lists, or the common name of the columns.

    Raises:
        ValueError: the file is no parquet file, has no such columns, several are possible, or the
            package ``pyarrow`` is missing.
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
                f"{path} is no parquet file ({first_line(error)}); write it again"
            ) from error
        if not self.rows:
            raise ValueError(f"{path} has no rows; leave it out")
        numbers = next((c for c in ID_COLUMNS if is_whole(schema, c)), None)
        texts = next((c for c in ID_COLUMNS if is_text(schema, c)), None)
        self._ids, self._keys = numbers, texts
        self.has_ids, self.has_keys = numbers is not None, texts is not None
        self._columns = chosen_columns(path, schema, key)
        first = schema.field(self._columns[0]).type
        self._is_list = is_list(first)
        number = first.value_type if self._is_list else first
        self.dtype = np.dtype(number.to_pandas_dtype()).name
        self.what = f"column {self._columns[0]!r}"
        if not self._is_list:
            self.width = len(self._columns)
            self.what = f"{self.width} columns {self._columns[0]} to {self._columns[-1]}"
            self.columns = tuple(self._columns)
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
        """Batches of rows, as one array per column; a row group is never read whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as table:
                for batch in table.iter_batches(batch_size=size, columns=columns):
                    yield [batch.column(name) for name in columns]
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{self.path} is damaged ({first_line(error)}); write it again"
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
