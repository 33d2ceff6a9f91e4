"""What a command that does not succeed says last."""

from __future__ import annotations

import sys


def fail(message: str, status: int) -> None:
    """Ends the process with one line of error."""
    say(message, "error")
    sys.exit(status)


def say(message: str, kind: str) -> None:
    """One line on stderr."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]{kind}:[/] {escape(message)}", highlight=False
    )
