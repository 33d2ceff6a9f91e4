"""Options of `coke export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coke.tools.options import EpochOption


def export(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `coke train`.")
    ],
    out: Annotated[Path, typer.Argument(help="New file; a new folder for --format hf.")],
    format_name: Annotated[
        str,
        typer.Option("--format", help="Format: torchvision, timm, hf, onnx, pt2 or detectron2."),
    ],
    epoch: EpochOption = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="onnx, pt2: take uint8 pixels and normalise."),
    ] = False,
    head: Annotated[
        Optional[Path],
        typer.Option(
            help="onnx, pt2: the classifier in this file of `coke eval finetune`, not a checkpoint."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in OUT.")
    ] = False,
) -> None:
    """Write a run's backbone for another tool, with a model card."""
    from coke.tools.export.export import export as run
    from coke.tools.export.settings import ExportSettings

    settings = ExportSettings(
        format=format_name, epoch=epoch, with_preprocessing=with_preprocessing, head=head
    )
    run(run_folder, out, settings, overwrite=overwrite)
