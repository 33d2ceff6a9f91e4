"""`coke demo`: everything once, on Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data set and run.")] = Path("demo"),
) -> None:
    """Fashion-MNIST, from files to an evaluated representation, in minutes on two cores."""
    from coke.tools.demo.demo import demo as run

    run(out)
