"""``features.npy`` of an embedding: written as rows come, continued after an interruption."""

from __future__ import annotations

import shutil
import time
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from coke.files import journal
from coke.files.npy_rows import NpyRows
from coke.files.workspace import Workspace
from coke.tools.features.feature_files import ARRAY

_SAVED_EVERY = 20.0  # seconds of work that an interruption may cost


class FeatureRows:
    """Features (N, D), appended batch by batch; a context manager.

    Ctrl-C saves what is there; other interruptions lose the last 20 seconds.

    Args:
        work: where the file is built.
        plan: fingerprint of what is made; rows of another plan are not continued.
        rows: N.
        dtype: name of the file's type.

    Attributes:
        done: rows that are there.
        width: D; 0 before the first batch.
        precision: of the forward passes that gave the rows; set by the caller, and kept for the
            run that continues. None where it is not known, or there are none.
    """

    def __init__(self, work: Workspace, plan: str, rows: int, dtype: str) -> None:
        self._path, self._mark = work.dataset / ARRAY, work.journal / f"features{journal.SUFFIX}"
        self._plan, self._rows, self._dtype = plan, rows, dtype
        self._file: NpyRows | None = None
        self.done = self.width = 0
        self.precision: str | None = None
        if (saved := journal.load(self._mark, plan)) is not None:
            about = saved[0]
            self.done, self.width, self.precision = (
                about["rows"],
                about["width"],
                about["precision"],
            )
        if self.done:
            self._file = NpyRows(self._path, (rows, self.width), dtype, done=self.done)
        self._saved_at = time.monotonic()

    def append(self, features_BD: NDArray[np.float32]) -> None:
        """The next rows.

        Raises:
            ValueError: the disk has no room for all rows; found out at the first batch.
        """
        if self._file is None:
            self.width = features_BD.shape[1]
            self._check_room()
            self._file = NpyRows(self._path, (self._rows, self.width), self._dtype)
        self._file.append(features_BD)
        self.done += len(features_BD)
        if time.monotonic() - self._saved_at >= _SAVED_EVERY:
            self._save()

    def __enter__(self) -> FeatureRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if kind is KeyboardInterrupt:
            self._save()
        self._file.close()
        assert kind is not None or self.done == self._rows, "every image has a row"

    def _save(self) -> None:
        """Rows first, then the word that they are there."""
        assert self._file is not None
        self._file.flush()
        about = {"rows": self.done, "width": self.width, "precision": self.precision}
        journal.save(self._mark, self._plan, about, np.zeros(0, dtype=[("none", "u1")]))
        self._saved_at = time.monotonic()

    def _check_room(self) -> None:
        folder = self._path.parent
        needed = self._rows * self.width * np.dtype(self._dtype).itemsize
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"features of {self._rows:,} images take {needed / 1e9:.1f} GB, {folder} has "
                f"{free / 1e9:.1f} GB free; choose another OUT, or --dtype float16"
            )
