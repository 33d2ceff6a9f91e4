"""The commands on features: `coke embed` and `coke cluster`."""

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


def cluster(
    features: Annotated[
        Path,
        typer.Argument(
            help=".npy, .npz, .parquet, .safetensors, .csv, .tsv; a folder of such; an embedding."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="A new folder for labels, centers, a summary.")],
    clusters: Annotated[int, typer.Option(help="How many.")] = 100,
    min_ratio: Annotated[
        Optional[float], typer.Option(help="Smallest size as a share of rows / clusters; 0.4.")
    ] = None,
    min_size: Annotated[Optional[int], typer.Option(help="Smallest size in rows.")] = None,
    max_size: Annotated[Optional[int], typer.Option(help="Largest size in rows.")] = None,
    metric: Annotated[str, typer.Option(help="cosine or euclidean.")] = "cosine",
    passes: Annotated[int, typer.Option(help="Over the features, at most.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Rows at a time.")] = 1024,
    restarts: Annotated[int, typer.Option(help="Starts; the best one is kept.")] = 1,
    seed: Annotated[int, typer.Option(help="Decides starts and order.")] = 0,
    key: Annotated[
        Optional[str],
        typer.Option(
            help="Member, tensor or column, where a file has several; in a .csv, also the column "
            "that names the rows."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Cluster features so that no cluster is smaller, or larger, than you say."""
    from coke.tools.features.cluster import ClusterSettings
    from coke.tools.features.cluster import cluster as run

    settings = ClusterSettings(
        clusters=clusters,
        min_ratio=min_ratio,
        min_size=min_size,
        max_size=max_size,
        metric=metric,
        passes=passes,
        batch_size=batch_size,
        restarts=restarts,
        seed=seed,
    )
    run(features, out, settings, key=key, overwrite=overwrite)
    _write_page(out)


def _write_page(out: Path) -> None:
    """The page of sizes beside the clusters; without its packages, how to get it."""
    from rich.console import Console

    from coke.tools.page.clusters import SIZES_PAGE, write_sizes_page
    from coke.tools.page.render import MISSING, pages_are_possible

    if pages_are_possible():
        write_sizes_page(out)
    else:
        Console().print(f"no {SIZES_PAGE}: {MISSING}", highlight=False, markup=False)
