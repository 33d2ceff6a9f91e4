"""`coke index`: a data set of a .beton, without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def index_file(
    file: Annotated[Path, typer.Argument(help="A .beton that FFCV wrote.")],
    out: Annotated[
        Optional[Path],
        typer.Argument(help="Where the data set goes; FILE without .beton if unset."),
    ] = None,
    image: Annotated[Optional[str], typer.Option(help="Field of the images.")] = None,
    label: Annotated[Optional[str], typer.Option(help="Int field of labels, or none.")] = None,
    id_field: Annotated[
        Optional[str], typer.Option("--id", help="Int field that numbers the samples, or none.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a data set in OUT.")] = False,
) -> None:
    """Make a data set of a .beton without copying it: an index that refers to the file."""
    from coke.tools.datasets.index_beton import index_beton as run

    run(file, out, image=image, label=label, id_field=id_field, overwrite=overwrite)
