"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# typer reads these annotations at run time, so they are spelled for the oldest Python it supports
DataArgument = Annotated[
    str, typer.Argument(help="A data set made by `coke ingest`: a folder, or its s3://... URL.")
]
IdsOption = Annotated[
    Optional[Path],
    typer.Option("--ids", help="A .npy file of ids: take these images alone."),
]
CacheOption = Annotated[
    Optional[str],
    typer.Option("--cache-dir", help="Folder for remote data; $COKE_CACHE if unset."),
]
PresetOption = Annotated[
    Optional[str],
    typer.Option("--preset", help="Named settings, see docs/recipes.md; auto if unset."),
]
ConfigOption = Annotated[Optional[Path], typer.Option("--config", help="TOML file of settings.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="Any setting, such as --set model.depth=18; repeatable."),
]
ViewsOption = Annotated[Optional[int], typer.Option(help="Large views per image, 1 or more.")]
BatchOption = Annotated[Optional[int], typer.Option("--batch-size", help="Images per step.")]
LoaderOption = Annotated[
    Optional[str], typer.Option("--loader", help="auto, dali, pil or ffcv (to compare with).")
]
DeviceOption = Annotated[Optional[str], typer.Option("--device", help="auto, cpu, cuda, cuda:N.")]
EpochOption = Annotated[
    Optional[int], typer.Option("--epoch", help="Epoch of the checkpoint; the newest if unset.")
]
