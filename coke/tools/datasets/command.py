"""`coke ingest`: images become a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def ingest(
    src: Annotated[
        str, typer.Argument(help="Folder, tar, parquet file or table of images; path or URL.")
    ],
    out: Annotated[str, typer.Argument(help="Where the data set goes, path or URL.")],
    shard_size: Annotated[int, typer.Option(help="Images per container; 0 for one.")] = 2000,
    workers: Annotated[Optional[int], typer.Option(help="Processes; all cores if unset.")] = None,
    resize_shorter: Annotated[
        Optional[int], typer.Option(help="Shrink images whose shorter side is longer than this.")
    ] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality of what must be re-encoded.")] = 95,
    labels: Annotated[str, typer.Option(help="auto, folders or none.")] = "auto",
    source: Annotated[
        str, typer.Option(help="auto, folders, idx, imagenet, parquet, wds or table.")
    ] = "auto",
    check: Annotated[
        str, typer.Option(help="decode every image, or trust JPEGs by their header.")
    ] = "decode",
    base: Annotated[
        Optional[Path], typer.Option(help="Older data set whose ids are kept; may be OUT.")
    ] = None,
    match: Annotated[
        str, typer.Option(help="key, or content: renamed files keep their ids, too.")
    ] = "key",
    dedupe: Annotated[
        Optional[str], typer.Option(help="report files of equal bytes, or drop them.")
    ] = None,
    engine: Annotated[str, typer.Option(help="process, or ray for a cluster.")] = "process",
    ray_address: Annotated[
        Optional[str], typer.Option(help="Ray cluster; a local one is started if unset.")
    ] = None,
    format: Annotated[str, typer.Option(help="wds (tars) or ffcv (betons).")] = "wds",
    overwrite: Annotated[bool, typer.Option(help="Replace a data set in OUT.")] = False,
    restart: Annotated[
        bool, typer.Option(help="Forget what an interrupted ingest has finished.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Fail if any image is rejected.")] = False,
) -> None:
    """Turn a folder of images into a data set: containers, an index, stable ids."""
    from coke.tools.datasets.ingest import ingest as run

    run(
        src,
        out,
        shard_size=shard_size,
        workers=workers,
        resize_shorter=resize_shorter,
        quality=quality,
        labels=labels,
        source=source,
        check=check,
        base=base,
        match=match,
        dedupe=dedupe,
        engine=engine,
        ray_address=ray_address,
        format=format,
        overwrite=overwrite,
        restart=restart,
        strict=strict,
    )
