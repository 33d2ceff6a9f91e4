"""Whether cache and open files suffice for an order: checked before the first download."""

from __future__ import annotations

import numpy as np

from coke.pipeline.containers.mapped import OTHER_FILES, allow_open_files
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.order.epoch_order import EpochOrder

_FILES_PER_CONTAINER = 2  # one descriptor holds the lock, one belongs to the map


def check_cache(index: ImageIndex, order: EpochOrder, *, in_flight: int, limit: int) -> None:
    """Refuses an order that needs more containers at a time than the cache may hold, or than this
    process may open.

    The ranks of a host share the cache and read the order side by side.

    Args:
        index: the data set.
        order: which ids come when.
        in_flight: images between the first that some rank still reads, and the last that some rank
            reads already.
        limit: bytes that the cache may take.

    Raises:
        ValueError: a limit is too small; the message names a limit that suffices.
    """
    windows = order.windows(0)
    if not windows:
        return
    containers = index.manifest.containers
    sizes = sorted((c.size for c in containers), reverse=True)
    if len(windows) == 1:
        together = len(windows[0].containers)
    else:
        # Windows differ from epoch to epoch: assume the smallest ones, of the largest containers.
        images = sorted(_images(index))
        smallest = sum(images[: min(len(w.containers) for w in windows)])
        at_once = 1 + -(-(in_flight - 1) // max(smallest, 1))
        together = min(at_once * order.containers_at_once, sum(len(w.containers) for w in windows))
    needed = sum(sizes[:together])
    remedy = "order=blocks, " if len(windows) == 1 and len(windows[0].containers) > 1 else ""
    files = _FILES_PER_CONTAINER * together
    allowed = allow_open_files(files)
    if allowed < files + OTHER_FILES:
        raise ValueError(
            f"this order of {index.location} reads {together} containers at a time, which takes "
            f"{files + OTHER_FILES} open files, and this process may open {allowed}: raise the "
            f"hard limit of open files (ulimit -Hn) to {files + OTHER_FILES} or more, or use "
            f"{remedy}a smaller window, or ingest again with a larger --shard-size"
        )
    if needed > limit:
        raise ValueError(
            f"the cache may hold {limit / 1e9:,.3g} GB, but this order of {index.location} reads "
            f"{together} containers of up to {needed / 1e9:,.3g} GB at a time: use {remedy}"
            f"a smaller window, or cache_gb={1.01 * needed / 1e9:.3g} or more"
        )


def _images(index: ImageIndex) -> list[int]:
    """Images of each container that has any."""
    live, containers = index.live, index.manifest.containers
    starts = live.before(np.array([c.start for c in containers]))
    stops = live.before(np.array([c.stop for c in containers]))
    return [count for count in (stops - starts).tolist() if count]
