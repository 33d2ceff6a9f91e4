"""Ending a run on request: SIGTERM and SIGINT ask for a checkpoint at the next step."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

#: Exit status of a run that stopped on request and can be resumed (``EX_TEMPFAIL``).
STOPPED_STATUS = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_S = 0.3  # a terminal and a launcher may both pass one Ctrl-C on


class RunStopped(Exception):  # noqa: N818 - it is no error
    """A run was asked to end, and has saved where it is."""


class Interruption:
    """Context manager that turns a signal into a flag; a second SIGINT (Ctrl-C) ends all at once.

    A second SIGTERM does not: schedulers send it to every process, and launchers pass it on. Only
    Python's main thread may handle signals: elsewhere this does nothing.

    Args:
        agree: makes one answer of the answers of all ranks, each of which must ask at the same
            steps, see :class:`coke.distributed.any_rank.AnyRank`.
    """

    def __init__(self, agree: Callable[[bool], bool] = bool) -> None:
        self._agree = agree
        self._received: str | None = None
        self._at = 0.0
        self._handlers: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether the run, on any rank, was asked to end."""
        return self._agree(self._received is not None)

    @property
    def reason(self) -> str:
        return self._received or "signal to another rank"

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._at = signal.Signals(number).name, time.monotonic()
            return
        if number == signal.SIGTERM or time.monotonic() - self._at < _SAME_S:
            return
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # the cursor that progress bars hide
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
