"""`coke report`: a page about a run or a clustering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    subject: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `coke train`.")
    ],
    out: Annotated[Path, typer.Option(help="The page, a new file.")] = Path("report.html"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is there.")
    ] = False,
) -> None:
    """Write a page about a run: curves, evaluations, settings, what to try next."""
    from coke.tools.page.report import report_run

    report_run(subject, out=out, overwrite=overwrite)
