"""Ending a run on request: SIGTERM and SIGINT ask for a checkpoint at the next step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

#: Exit status of a run that stopped on request and can be resumed (``EX_TEMPFAIL``).
STOPPED_STATUS = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunStopped(Exception):  # noqa: N818 - it is no error
    """A run was asked to end, and has saved where it is."""


class Interruption:
    """Context manager that turns the first signal into a flag, and lets the second end all.

    Only Python's main thread may handle signals: elsewhere this does nothing.

    Args:
        agree: makes one answer of the answers of all ranks, each of which must ask at the same
            steps; itself where there is one.
    """

    def __init__(self, agree: Callable[[bool], bool] = bool) -> None:
        self._agree = agree
        self._received: str | None = None
        self._handlers: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether the run, on any rank, was asked to end."""
        return self._agree(self._received is not None)

    @property
    def reason(self) -> str:
        return self._received or "a signal to another rank"

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
            self._received = signal.Signals(number).name
            return
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # the cursor that progress bars hide
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
