"""Options of `coke export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coke.tools.options import EpochOption


def export(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `coke train`.")
    ],
    out: Annotated[Path, typer.Argument(help="New file; a new folder for --format hf.")],
    format_name: Annotated[str, typer.Option("--format", help="Format: torchvision.")],
    epoch: EpochOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in OUT.")
    ] = False,
) -> None:
    """Write a run's backbone for another tool, with a model card."""
    from coke.tools.export.export import export as run
    from coke.tools.export.settings import ExportSettings

    run(run_folder, out, ExportSettings(format=format_name, epoch=epoch), overwrite=overwrite)
