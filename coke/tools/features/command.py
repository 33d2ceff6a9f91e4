"""Options of `coke embed`, `coke cluster` and `coke assign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coke.tools.options import DataArgument, EpochOption, IdsOption


def embed(
    run_folder: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run folder; or `random` or `pixels`, the baselines."),
    ],
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="New folder for features.npy, ids.npy, ...")],
    split: Annotated[
        Optional[str], typer.Option(help="Split to take from a folder of splits; train if unset.")
    ] = None,
    ids: IdsOption = None,
    layer: Annotated[
        str, typer.Option(help="Layer that gives the features: backbone or projector.")
    ] = "backbone",
    epoch: EpochOption = None,
    preset: Annotated[
        Optional[str], typer.Option(help="Preset for `random` and `pixels`, see docs/recipes.md.")
    ] = None,
    size: Annotated[
        Optional[int],
        typer.Option(help="Side of the center crop in pixels; as in evaluations if unset."),
    ] = None,
    batch_size: Annotated[
        Optional[int],
        typer.Option(help="Images that are read at a time; by size and device if unset."),
    ] = None,
    precision: Annotated[
        Optional[str],
        typer.Option(
            help="Forward pass in auto, fp32, tf32, bf16 or fp16, where the device has it; the "
            "run's if unset."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Type of the features in the file: float32 or float16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result in OUT.")
    ] = False,
) -> None:
    """Write the features of a data set's images, by id. `coke cluster` reads them."""
    from coke.tools.features.embed import EmbedSettings
    from coke.tools.features.embed import embed as run

    settings = EmbedSettings(
        layer=layer,
        epoch=epoch,
        preset=preset,
        size=size,
        batch_size=batch_size,
        precision=precision,
        dtype=dtype,
        device=device,
    )
    run(run_folder, data, out, settings, split=split, ids=ids, overwrite=overwrite)


def cluster(
    features: Annotated[
        Path,
        typer.Argument(
            help="A .npy, .npz, .parquet, .safetensors, .csv or .tsv file, or a folder of files."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="New folder for labels, centers and a summary.")],
    clusters: Annotated[int, typer.Option(help="Number of clusters.")] = 100,
    min_ratio: Annotated[
        Optional[float],
        typer.Option(help="Smallest size as a share of rows / clusters; 0.4 if unset."),
    ] = None,
    max_ratio: Annotated[
        Optional[float],
        typer.Option(help="Largest size as a share of rows / clusters; no limit if unset."),
    ] = None,
    min_size: Annotated[Optional[int], typer.Option(help="Smallest size in rows.")] = None,
    max_size: Annotated[Optional[int], typer.Option(help="Largest size in rows.")] = None,
    metric: Annotated[str, typer.Option(help="Metric: cosine or euclidean.")] = "cosine",
    passes: Annotated[int, typer.Option(help="Largest number of passes over the rows.")] = 10,
    batch_size: Annotated[
        int, typer.Option(help="Rows that are compared with the centers at a time.")
    ] = 1024,
    restarts: Annotated[int, typer.Option(help="Number of starts; the best result is kept.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of starts and order.")] = 0,
    key: Annotated[
        Optional[str],
        typer.Option(
            help="Member, tensor or column to read, if a file has several; in a .csv or .tsv also "
            "the column of ids or keys."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result in OUT.")
    ] = False,
) -> None:
    """Cluster features so that no cluster is smaller, or larger, than you say."""
    from coke.tools.features.cluster import cluster as run
    from coke.tools.features.cluster_settings import ClusterSettings

    settings = ClusterSettings(
        clusters=clusters,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
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


def assign(
    clustering: Annotated[Path, typer.Argument(help="A folder made by `coke cluster`.")],
    features: Annotated[
        Path,
        typer.Argument(
            help="A .npy, .npz, .parquet, .safetensors, .csv or .tsv file, or a folder of files."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="New folder for labels, distances and a summary.")],
    keep_sizes: Annotated[
        bool,
        typer.Option("--keep-sizes", help="Hold the clustering's bounds on sizes in these rows."),
    ] = False,
    key: Annotated[
        Optional[str], typer.Option(help="Member, tensor or column to read, as in `coke cluster`.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result in OUT.")
    ] = False,
) -> None:
    """Give new rows the clusters of the nearest centers."""
    from coke.tools.features.assign import assign as run

    run(clustering, features, out, keep_sizes=keep_sizes, key=key, overwrite=overwrite)


def _write_page(out: Path) -> None:
    """Writes the page of sizes, or says which packages it needs."""
    from rich.console import Console

    from coke.tools.page.clusters import SIZES_PAGE, write_sizes_page
    from coke.tools.page.render import MISSING, pages_are_possible

    if pages_are_possible():
        write_sizes_page(out)
    else:
        Console().print(f"no {SIZES_PAGE}: {MISSING}", highlight=False, markup=False)
