"""The `.beton` layout (version 2): FFCV's file format, read and written with numpy alone.

A file has a header, one descriptor per field, a table of samples with one row of metadata each,
pages of image bytes, and an allocation table with the place and length of each image's bytes.
FFCV's own writer encodes every image again; this one stores the bytes it is given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.index import JPEG, RAW_RGB

VERSION = 2
#: Bytes of a page, as FFCV's default. A sample must fit into one page; pages are aligned to it.
PAGE_SIZE = 1 << 23
_LARGEST_PAGE = 1 << 31  # the header keeps the size as 32 bits

FLOAT, INT, IMAGE, BYTES, NDARRAY, JSON, TENSOR = range(7)  # field types, by their number in a file
_JPG, _RAW = 0, 1  # modes of an image in a file

_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
_DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "S16"), ("arguments", "V1024")])
_ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
_IMAGE_RECORD = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("ptr", "<u8")])
_BYTES_RECORD = np.dtype([("ptr", "<u8"), ("size", "<u8")])
_METADATA: dict[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f8"),
    INT: np.dtype("<i8"),
    IMAGE: _IMAGE_RECORD,
    BYTES: _BYTES_RECORD,
    NDARRAY: np.dtype("<u8"),
    JSON: _BYTES_RECORD,
    TENSOR: np.dtype("<u8"),
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column of a beton."""

    name: str
    type_id: int


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Places of the images of one field; every array is (N,), in the order of the samples.

    ``encoding`` is :data:`~coke.pipeline.dataset.index.JPEG` or
    :data:`~coke.pipeline.dataset.index.RAW_RGB`.
    """

    offset: NDArray[np.uint64]
    length: NDArray[np.uint64]
    height: NDArray[np.uint16]
    width: NDArray[np.uint16]
    encoding: NDArray[np.uint8]


#: Fields that `coke ingest --format ffcv` writes.
INGEST_FIELDS = (
    Field(name="image", type_id=IMAGE),
    Field(name="id", type_id=INT),
    Field(name="label", type_id=INT),
)


def metadata_dtype(fields: Sequence[Field]) -> np.dtype[np.void]:
    """A row of the table of samples: one member per field, named f0, f1, ..., aligned as in C."""
    members = [(f"f{i}", _METADATA[field.type_id]) for i, field in enumerate(fields)]
    return np.dtype(members, align=True)


class RecordTooLargeError(Exception):
    """A record does not fit into a page; :attr:`page_size` is the smallest that would do."""

    def __init__(self, length: int) -> None:
        super().__init__(f"a record of {length} bytes")
        self.page_size = 1 << (length - 1).bit_length()


class BetonWriter:
    """Writes a beton of JPEGs with the fields image, id and label.

    The bytes are a function of the records, their order, and the page size. The header is written
    last, so a file that was not finished does not read as a beton.

    Args:
        path: the file.
        count: number of records that will be added.
        page_size: a power of two, in bytes.
    """

    def __init__(self, path: Path, *, count: int, page_size: int = PAGE_SIZE) -> None:
        assert page_size & (page_size - 1) == 0 and page_size <= _LARGEST_PAGE
        self._page_size = page_size
        self._metadata = np.zeros(count, dtype=metadata_dtype(INGEST_FIELDS))
        self._allocations = np.zeros(count, dtype=_ALLOCATION)
        self._added = 0
        before_pages = _metadata_start(len(INGEST_FIELDS)) + self._metadata.nbytes
        self._end = -(-before_pages // page_size) * page_size
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()

    def add(self, jpeg: bytes, *, height: int, width: int, image_id: int, label: int) -> int:
        """Stores the next record; returns the offset of its bytes in the file.

        Raises:
            RecordTooLargeError: the record is larger than a page.
        """
        if len(jpeg) > self._page_size:
            raise RecordTooLargeError(len(jpeg))
        left = self._page_size - self._end % self._page_size
        offset = self._end if len(jpeg) <= left else self._end + left
        self._file.seek(offset)  # the rest of a page stays a hole, which reads as zeros
        self._file.write(jpeg)
        self._end = offset + len(jpeg)
        self._metadata[self._added] = ((_JPG, width, height, offset), image_id, label)
        self._allocations[self._added] = (self._added, offset, len(jpeg))
        self._added += 1
        return offset

    def _finish(self) -> None:
        assert self._added == len(self._metadata), f"{self._added} of {len(self._metadata)} records"
        self._file.seek(self._end)
        self._file.write(self._allocations.tobytes())
        self._file.truncate()  # without records, the file must still contain the hole before
        descriptors = np.zeros(len(INGEST_FIELDS), dtype=_DESCRIPTOR)
        for descriptor, field in zip(descriptors, INGEST_FIELDS, strict=True):
            descriptor["type_id"], descriptor["name"] = field.type_id, field.name
        header = np.array(
            (VERSION, len(INGEST_FIELDS), self._page_size, self._added, self._end), dtype=_HEADER
        )
        self._file.seek(_HEADER.itemsize)
        self._file.write(descriptors.tobytes() + self._metadata.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes())


class Beton:
    """A beton opened for reading its tables; the images stay on disk.

    Attributes:
        fields: columns of the table of samples.
        page_size: in bytes.

    Raises:
        ValueError: not a beton of version 2, damaged, or with a field of a type of its own.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size = os.path.getsize(self.path)
        (header,) = self._table(_HEADER, 1, 0, "header")
        if header["version"] != VERSION:
            raise ValueError(
                f"{self.path} is no beton of version {VERSION}: it starts with "
                f"{int(header['version'])} where the version is"
            )
        self.page_size = int(header["page_size"])
        start = _HEADER.itemsize
        descriptors = self._table(_DESCRIPTOR, int(header["num_fields"]), start, "list of fields")
        self.fields = tuple(self._field(descriptor) for descriptor in descriptors)
        dtype, count = metadata_dtype(self.fields), int(header["num_samples"])
        start = _metadata_start(len(self.fields))
        self.metadata: NDArray[np.void] = self._table(dtype, count, start, "table of samples")
        start = int(header["alloc_table_ptr"])
        rows = max(self.size - start, 0) // _ALLOCATION.itemsize
        allocations = self._table(_ALLOCATION, rows, start, "allocation table")
        self._allocations = allocations[np.argsort(allocations["ptr"], kind="stable")]

    def __len__(self) -> int:
        return len(self.metadata)

    def _table(
        self, dtype: np.dtype[np.void], count: int, start: int, name: str
    ) -> NDArray[np.void]:
        if start + count * dtype.itemsize > self.size:
            raise ValueError(
                f"{self.path} is cut off, damaged or no beton: its {name} would end at byte "
                f"{start + count * dtype.itemsize}, the file ends at {self.size}"
            )
        return np.fromfile(self.path, dtype=dtype, count=count, offset=start)

    def _field(self, descriptor: np.void) -> Field:
        name = bytes(descriptor["name"]).decode("ascii", errors="replace")
        if int(descriptor["type_id"]) not in _METADATA:
            raise ValueError(
                f"{self.path}: field {name!r} is of type {int(descriptor['type_id'])}, whose size "
                "only the code that wrote it knows; write the beton again without this field"
            )
        return Field(name=name, type_id=int(descriptor["type_id"]))

    def column(self, name: str) -> NDArray[Any]:
        """Metadata of a field, one row per sample; for an int field its values (N,) int64.

        Raises:
            ValueError: there is no such field; the message lists those there are.
        """
        names = [field.name for field in self.fields]
        if name not in names:
            raise ValueError(f"{self.path} has no field {name!r}; its fields: {', '.join(names)}")
        column: NDArray[Any] = self.metadata[f"f{names.index(name)}"]
        return column

    def images(self, name: str) -> StoredImages:
        """The places of the images of a field.

        Raises:
            ValueError: no such field of images, or the tables disagree about where images lie.
        """
        record = self.column(name)
        if record.dtype != _IMAGE_RECORD:
            raise ValueError(f"{self.path}: field {name!r} holds no images")
        ptr, mode = record["ptr"], record["mode"]
        starts = self._allocations["ptr"]
        at = np.minimum(np.searchsorted(starts, ptr), max(len(starts) - 1, 0))
        lost = starts[at] != ptr if len(starts) else np.ones(len(ptr), dtype=np.bool_)
        if lost.any():
            sample = int(lost.argmax())
            raise ValueError(
                f"{self.path}: the allocation table knows nothing of sample {sample} at offset "
                f"{int(ptr[sample])}; {int(lost.sum())} samples are like this"
            )
        length = self._allocations["size"][at] if len(starts) else np.zeros(0, dtype=np.uint64)
        outside = (ptr > self.size) | (length > self.size - ptr)
        if outside.any():
            sample = int(outside.argmax())
            raise ValueError(
                f"{self.path}: sample {sample} has {int(length[sample])} bytes at offset "
                f"{int(ptr[sample])}, the file ends at {self.size}"
            )
        encoding = np.where(mode == _RAW, RAW_RGB, JPEG).astype(np.uint8)
        pixels = 3 * record["width"].astype(np.uint64) * record["height"].astype(np.uint64)
        wrong = (mode > _RAW) | ((mode == _RAW) & (length != pixels)) | (length == 0)
        if wrong.any():
            sample = int(wrong.argmax())
            raise ValueError(
                f"{self.path}: sample {sample} is of mode {int(mode[sample])} and "
                f"{int(record['width'][sample])}x{int(record['height'][sample])} pixels, but has "
                f"{int(length[sample])} bytes"
            )
        return StoredImages(
            offset=ptr.astype(np.uint64),
            length=length.astype(np.uint64),
            height=record["height"].copy(),
            width=record["width"].copy(),
            encoding=encoding,
        )


def _metadata_start(num_fields: int) -> int:
    return _HEADER.itemsize + num_fields * _DESCRIPTOR.itemsize
