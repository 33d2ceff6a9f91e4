"""`coke verify`: is a data set whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    data: Annotated[Path, typer.Argument(help="A data set, or a folder of splits.")],
    decode: Annotated[str, typer.Option(help="How many images to decode, or `all`.")] = "200",
) -> None:
    """Recompute hashes, compare index and containers, decode images; exit 1 on any problem."""
    from coke.tools.datasets.verify import verify as run

    if decode != "all" and not decode.isdigit():
        raise ValueError(f"--decode is {decode!r}; give a number or `all`")
    if run(data, decode="all" if decode == "all" else int(decode)):
        raise typer.Exit(1)
