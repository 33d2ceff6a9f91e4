"""One file of features, N rows of width D: `.npy`, `.npz`, parquet, safetensors, `.csv` or `.tsv`.

Opening reads the header, or counts the rows of a table of text. Rows are read in batches and in
order, so that no file needs to fit in memory.
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
#: Tables of text. Beside other feature files they often hold labels or notes, not features.
TEXT_SUFFIXES = (".csv", ".tsv")


def open_feature_file(path: Path, key: str | None) -> FeatureFile:
    """Opens a file whose suffix, in any case, is one of :data:`SUFFIXES`.

    Raises:
        ValueError: the file is not what its suffix says; the message names the file.
    """
    return _KINDS[path.suffix.lower()](path, key)
