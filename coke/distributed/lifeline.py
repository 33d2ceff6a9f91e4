"""Lifelines: a process that ends when the process that started it ends, in whatever way.

A lifeline is a pipe through which nothing is sent. The starter holds one end, and the system closes
it when the starter ends. The started process waits for that in a thread. This file needs no torch:
whoever starts processes need not wait for its import.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection

#: Environment variable with the descriptor of a rank's lifeline, which ``coke train --nproc`` sets.
LIFELINE = "COKE_LIFELINE_FD"
#: Exit status of a rank that ended because another process of its run did.
PEER_LOST = 76


class Lifeline:
    """The pipe of a process that starts others.

    Attributes:
        theirs: the end that started processes inherit and wait at.
    """

    def __init__(self) -> None:
        self.theirs, self._ours = multiprocessing.Pipe(duplex=False)

    def cut(self) -> None:
        """Ends the processes that wait at the lifeline."""
        self._ours.close()

    def close(self) -> None:
        """As :meth:`cut`, for the end: the pipe is gone."""
        self._ours.close()
        self.theirs.close()


def end_with_starter(lifeline: int | Connection, status: int) -> None:
    """Ends this process with ``status`` when the starter's end of its lifeline closes.

    Args:
        lifeline: ``Lifeline.theirs`` or its descriptor; it must stay open.
        status: exit status of this process.
    """

    def wait() -> None:
        os.read(lifeline if isinstance(lifeline, int) else lifeline.fileno(), 1)
        os._exit(status)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def end_with_launcher(environment: Mapping[str, str]) -> None:
    """Ends this rank when ``coke train --nproc`` ends, if that started it.

    A rank without a launcher would train on unseen.
    """
    if LIFELINE in environment:
        end_with_starter(int(environment[LIFELINE]), PEER_LOST)
