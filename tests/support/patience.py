"""How long tests wait for what must happen."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds. On a busy machine a process may need a minute to start; only a broken test waits longer.
PATIENCE_S = 300


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Returns as soon as ``happened()`` is true; fails, naming ``what``, when patience ends."""
    last = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < last, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.01)
