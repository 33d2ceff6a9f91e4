"""Pillow's limit of pixels, lifted for images that ingest has accepted by a limit of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_lifted = threading.RLock()  # the limit is one variable for all threads


@contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Pillow opens and crops images of any size in the ``with`` block, without a warning."""
    with _lifted:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
