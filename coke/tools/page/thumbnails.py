"""Small pictures of images, as text within a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from rich.console import Console
from rich.progress import Progress

from coke.distributed.workers import default_workers
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.images.pixel_limit import no_pixel_limit
from coke.pipeline.loading.reader import RecordReader

#: Sides in pixels, the largest that keeps the page small enough is taken.
SIDES = (64, 56, 48, 40, 32, 24)
#: Bytes of all thumbnails as text: with plotly.js (5 MB) and the rest of a page, below 15 MB.
BUDGET = 8_500_000
_QUALITY = 65  # of WebP and JPEG
_TRIED = 48  # images by which the side is chosen
_AT_ONCE = 256  # images that are read together


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """Squares cut from the middle of images.

    Attributes:
        kind: ``"webp"``, or ``"jpeg"`` where Pillow has no WebP.
        side: in pixels; smaller images are not enlarged.
        of: the picture of each id as base64; ids whose image cannot be decoded are missing.
    """

    kind: str
    side: int
    of: dict[int, str]


def make_thumbnails(
    index: ImageIndex,
    ids: Sequence[int],
    *,
    budget: int = BUDGET,
    cache_gb: float,
    console: Console,
) -> Thumbnails:
    """Pictures of images; no others are decoded.

    Args:
        ids: of images; repeated ones are made once.
        budget: bytes of all of them as base64; they become smaller until they fit, by an estimate.

    Raises:
        ValueError: a container is missing or damaged.
    """
    wanted = sorted(set(ids))
    kind = "webp" if features.check("webp") else "jpeg"
    reader = RecordReader(index, cache_gb=cache_gb)
    with ThreadPoolExecutor(default_workers()) as pool:

        def made(ids: Sequence[int], side: int) -> dict[int, str]:
            stored = [bytes(record) for record in reader.read(np.array(ids, dtype=np.int64))]
            pictures = pool.map(lambda data: _picture(data, side, kind), stored)
            return {i: text for i, text in zip(ids, pictures, strict=True) if text is not None}

        some = wanted[:: -(-len(wanted) // _TRIED) or 1]
        side = next(
            (side for side in SIDES if _mean(made(some, side)) * len(wanted) <= budget), SIDES[-1]
        )
        found: dict[int, str] = {}
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("thumbnails", total=len(wanted))
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                found |= made(part, side)
                progress.advance(task, len(part))
    return Thumbnails(kind=kind, side=side, of=found)


def square(image: Image.Image, side: int) -> Image.Image:
    """The square in the middle of an image, made smaller to ``side`` pixels where it is larger."""
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    box = (left, top, left + shorter, top + shorter)
    side = min(side, shorter)
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box, reducing_gap=2)


def _picture(data: bytes, side: int, kind: str) -> str | None:
    try:
        with no_pixel_limit():  # threads wait for each other here, and only here
            image = Image.open(io.BytesIO(data))
        image.draft("RGB", (side, side))  # decodes a JPEG at an eighth to all of its size
        small = square(image, side)
    except Exception:  # Pillow raises many types; a page has other pictures to show
        return None
    buffer = io.BytesIO()
    small.save(buffer, kind.upper(), quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _mean(found: dict[int, str]) -> float:
    lengths: NDArray[np.int64] = np.array([len(text) for text in found.values()] or [0])
    return float(lengths.mean())
