"""Columns of Arrow tables, in parquet or Arrow files: which hold images, paths and labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coke.pipeline.sources.labels import Label, labels_of_text, plain_label

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "picture", "bytes", "image_bytes", "data")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label", "cls", "category", "y")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image_path", "key", "__key__")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of images, paths and labels; ``image.bytes`` is a field of a struct."""

    image: str
    path: str | None
    label: str | None
    classes: tuple[str, ...] | None


def columns_of(schema: pa.Schema, path: str) -> Columns:
    """The columns of a file that are read.

    Raises:
        ValueError: there are no images, or several columns may be the images.
    """
    import pyarrow as pa

    features = _features(schema)
    images = {}
    for field in schema:
        if pa.types.is_struct(field.type):
            inner = {child.name: child.type for child in field.type}
            if _is_bytes(inner.get("bytes")):
                beside = f"{field.name}.path" if _is_text(inner.get("path")) else None
                images[field.name] = (f"{field.name}.bytes", beside)
        elif _is_bytes(field.type):
            beside = next((c for c in PATH_COLUMNS if _is_text(_type(schema, c))), None)
            images[field.name] = (field.name, beside)
    marked = [name for name in images if features.get(name, {}).get("_type") == "Image"]
    named = [name for name in IMAGE_COLUMNS if name in images]
    candidates = marked if len(marked) == 1 else named[:1] or list(images)
    if len(candidates) != 1:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        what = f"several columns of bytes ({', '.join(candidates)})" if candidates else "no images"
        raise ValueError(
            f"{path} has {what} in its columns {found}; images are in a column named "
            f"{', '.join(IMAGE_COLUMNS)}, as bytes or a struct of bytes and path"
        )
    image, beside = images[candidates[0]]
    is_class = [name for name, about in features.items() if about.get("_type") == "ClassLabel"]
    label = next((c for c in LABEL_COLUMNS if _type(schema, c) is not None), None)
    if label is None and len(is_class) == 1:
        label = is_class[0]
    names = features.get(label or "", {}).get("names")
    return Columns(image, beside, label, tuple(map(str, names)) if names else None)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The types that Hugging Face's ``datasets`` noted for the columns; empty if it noted none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"]
        return {name: f if isinstance(f, dict) else {} for name, f in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _type(schema: pa.Schema, name: str) -> pa.DataType | None:
    return schema.field(name).type if name in schema.names else None


def _is_bytes(kind: pa.DataType | None) -> bool:
    import pyarrow as pa

    return kind is not None and kind in (pa.binary(), pa.large_binary(), pa.binary_view())


def _is_text(kind: pa.DataType | None) -> bool:
    import pyarrow as pa

    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind is not None and kind in (pa.string(), pa.large_string(), pa.string_view())


def cells_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column, or the field of a struct as ``image.bytes`` names it."""
    if name in table.column_names:
        return table.column(name)
    struct, _, field = name.partition(".")
    import pyarrow.compute as pc

    return pc.struct_field(table.column(struct), field)


def labels_of_column(table: pa.Table, name: str, path: str) -> list[Label]:
    """The labels in a column.

    Raises:
        ValueError: one is neither a whole number nor a name.
    """
    where = f"the column {name} of {path}"
    return [plain_label(value, where) for value in table.column(name).to_pylist()]


def labels_together(keys: Sequence[str], parts: Sequence[Sequence[Label]]) -> list[Label]:
    """The labels of all files of a split. A column of text that holds numbers is one of numbers.

    Raises:
        ValueError: a text is a number that is not whole, or some are numbers and some are names.
    """
    labels = [label for part in parts for label in part]
    texts = [label for label in labels if label is None or isinstance(label, str)]
    return labels_of_text(texts, keys) if len(texts) == len(labels) else labels


def no_labels(columns: Columns, names: Sequence[str], path: str) -> list[str]:
    """A note about a file with further columns, none of which is read as labels.

    Args:
        columns: those that are read.
        names: of all columns.
        path: of the file.
    """
    read = {column.partition(".")[0] for column in (columns.image, columns.path or "")}
    others = [name for name in names if name not in read]
    if columns.label is not None or not others:
        return []
    return [
        f"No labels were read from {path}: none of its columns ({', '.join(others[:5])}) is called "
        f"{', '.join(LABEL_COLUMNS)}."
    ]


def keys_of(names: Sequence[str], paths: Sequence[Sequence[str | None]]) -> list[str]:
    """Keys of the images in several files: their paths, where each has one and no two the same.

    Otherwise ``<file>/<row>``.

    Args:
        names: of the files.
        paths: of the images in each file.
    """
    given = [path for inside in paths for path in inside]
    if all(given) and len(set(given)) == len(given):
        return [str(path) for path in given]
    return [
        f"{name.rpartition('.')[0] or name}/{row:06d}"
        for name, inside in zip(names, paths, strict=True)
        for row in range(len(inside))
    ]
