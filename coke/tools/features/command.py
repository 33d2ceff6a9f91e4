"""`coke embed`: features of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coke.tools.options import DataArgument, EpochOption


def embed(
    run_folder: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder; or `random`, or `pixels`.")
    ],
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="A new folder for features.npy, ids.npy, ...")],
    split: Annotated[
        Optional[str], typer.Option(help="Of a folder of splits; train if unset.")
    ] = None,
    layer: Annotated[str, typer.Option(help="backbone, or projector.")] = "backbone",
    epoch: EpochOption = None,
    preset: Annotated[
        Optional[str], typer.Option(help="Settings of `random` and `pixels`.")
    ] = None,
    size: Annotated[
        Optional[int], typer.Option(help="Side of the center crop; as in evaluations if unset.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a data set's features by id, from a run's checkpoint; `coke cluster` reads them."""
    from coke.tools.features.embed import EmbedSettings
    from coke.tools.features.embed import embed as run

    settings = EmbedSettings(
        layer=layer,
        epoch=epoch,
        preset=preset,
        size=size,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
    )
    run(run_folder, data, out, settings, split=split, overwrite=overwrite)
