"""`coke inspect`: what a data set holds, and the views made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def inspect(
    data: Annotated[Path, typer.Argument(help="A data set, or a folder of splits.")],
    views: Annotated[
        Optional[str], typer.Option(help="Recipe or TOML file to draw a contact sheet of.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The contact sheet: a .png file.")] = None,
    images: Annotated[int, typer.Option(help="Images on the sheet.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides the crops, as in training.")] = 0,
    epoch: Annotated[int, typer.Option(help="Whose views.")] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs side by side.")] = 1,
    loader: Annotated[str, typer.Option(help="auto, dali or pil.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Tables of what a data set holds; with --views, a contact sheet of augmented views."""
    from coke.tools.datasets.inspect import inspect as run
    from coke.tools.datasets.inspect import save_sheet

    if views is None and out is not None:
        raise ValueError(f"--out {out} needs --views: the recipe to draw, or a TOML file of it")
    if views is None:
        run(data)
        return
    from coke.config.views import view_recipes

    recipes = view_recipes(views)
    if out is None:
        raise ValueError(f"--views {views} needs --out SHEET.png: where the contact sheet goes")
    save_sheet(
        data,
        recipes,
        out,
        images=images,
        seed=seed,
        epoch=epoch,
        epochs=epochs,
        backend=loader,
        overwrite=overwrite,
    )
