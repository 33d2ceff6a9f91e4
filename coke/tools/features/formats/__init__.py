"""One file of features, N rows of width D: `.npy`, `.npz`, parquet, safetensors, `.csv` or `.tsv`.

Opening reads the header. Rows come in batches, in order, so no file needs to fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coke.tools.features.formats.delimited import DelimitedFile
from coke.tools.features.formats.feature_file import FeatureFile
from coke.tools.features.formats.npy import NpyFile
from coke.tools.features.formats.npz import NpzFile
from coke.tools.features.formats.parquet import ParquetFile
from coke.tools.features.formats.safetensors import SafetensorsFile

_KINDS: dict[str, Callable[[Path, str | None], FeatureFile]] = {
    ".npy": NpyFile,
    ".npz": NpzFile,
    ".parquet": ParquetFile,
    ".safetensors": SafetensorsFile,
    ".csv": DelimitedFile,
    ".tsv": DelimitedFile,
}
SUFFIXES = tuple(_KINDS)
#: Tables of text, which may as well say something about the features beside them.
TEXT_SUFFIXES = (".csv", ".tsv")


def open_feature_file(path: Path, key: str | None) -> FeatureFile:
    """A file by its suffix, which is one of :data:`SUFFIXES` in any case.

    Raises:
        ValueError: it cannot be read as that; the message names it.
    """
    return _KINDS[path.suffix.lower()](path, key)
