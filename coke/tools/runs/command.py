"""`coke runs`: the list of training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
) -> None:
    """List training runs with their state, epochs, loss and best probe."""
    from coke.tools.runs.runs import runs as run

    run(folder)
