"""Settings of an ingest: they are checked before work starts, and hashed into a fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL

from coke.pipeline.containers.formats import CONTAINER_WRITERS
from coke.pipeline.dataset.manifest import FORMAT_VERSION
from coke.pipeline.images.orientation import ORIENTATIONS
from coke.pipeline.images.pixels import SIXTEEN_BIT
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.sources import Splits
from coke.pipeline.sources.keys import key_bytes
from coke.tools.datasets.duplicates import DEDUPES
from coke.tools.datasets.ingest_checks import CHECKS
from coke.tools.datasets.stable_ids import MATCHES
from coke.version import __version__

ENGINES = ("process", "ray")


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """Settings that decide the bytes of a data set, together with its images."""

    shard_size: int
    resize_shorter: int | None
    quality: int
    sixteen_bit: str
    max_pixels: int
    orientation: str
    labels: str
    source: str
    check: str
    format: str
    match: str
    dedupe: str | None

    @property
    def storage(self) -> StorageSettings:
        """The part that concerns single images."""
        return StorageSettings(
            resize_shorter=self.resize_shorter,
            quality=self.quality,
            sixteen_bit=self.sixteen_bit,
            max_pixels=self.max_pixels,
            orientation=self.orientation,
        )


def check_arguments(
    settings: IngestSettings, workers: int | None, engine: str, *, has_base: bool
) -> None:
    """Raises ValueError where an argument is out of range, before anything is read."""
    if settings.shard_size < 0:
        raise ValueError(
            f"shard_size is {settings.shard_size}; give a number of images, or 0 for one container"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; give at least 1 process")
    if settings.resize_shorter is not None and settings.resize_shorter < 1:
        raise ValueError(f"resize_shorter is {settings.resize_shorter}; give at least 1 pixel")
    if not 1 <= settings.quality <= 100:
        raise ValueError(f"quality is {settings.quality}; JPEG quality goes from 1 to 100")
    if settings.max_pixels < 1:
        raise ValueError(f"max_pixels is {settings.max_pixels}; give at least 1 pixel")
    for name, value, allowed in (
        ("format", settings.format, tuple(CONTAINER_WRITERS)),
        ("check", settings.check, tuple(CHECKS)),
        ("sixteen_bit", settings.sixteen_bit, SIXTEEN_BIT),
        ("orientation", settings.orientation, ORIENTATIONS),
        ("match", settings.match, MATCHES),
        ("dedupe", settings.dedupe, (None, *DEDUPES)),
        ("engine", engine, ENGINES),
    ):
        if value not in allowed:
            named = ", ".join(choice for choice in allowed if choice is not None)
            raise ValueError(f"{name} is {value!r}; choose one of {named}")
    if settings.match == "content" and not has_base:
        raise ValueError("match is 'content', but there is no base whose ids could be kept")


def fingerprint(settings: IngestSettings, sources: Splits, base: str | Path | None) -> str:
    """A hash of everything that decides the result, except the contents of files and of the base.

    Encoders differ between versions of Pillow, so the version counts.
    """
    decisive = hashlib.sha256()
    about = {
        "versions": [__version__, FORMAT_VERSION, PIL.__version__],
        "settings": asdict(settings),
        "base": None if base is None else str(Path(base).resolve()),
    }
    decisive.update(json.dumps(about).encode())
    for name, source in sources.items():
        decisive.update(repr((name, source.origin, source.classes)).encode())
        decisive.update(key_bytes("\0".join((*source.keys, ""))))
        decisive.update(key_bytes(repr(source.others)))
        decisive.update(np.array(source.labels, dtype=np.int64).tobytes())
    decisive.update(key_bytes(repr(sources.beside)))
    return decisive.hexdigest()[:24]
