"""One file of features, N rows of width D: `.npy`, `.npz`, parquet or safetensors.

Opening reads the header. Rows come in batches, in order, so no file needs to fit in memory.
"""

from __future__ import annotations

from pathlib import Path

from coke.tools.features.formats.feature_file import FeatureFile
from coke.tools.features.formats.npy import NpyFile
from coke.tools.features.formats.npz import NpzFile
from coke.tools.features.formats.parquet import ParquetFile
from coke.tools.features.formats.safetensors import SafetensorsFile

SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors")


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
