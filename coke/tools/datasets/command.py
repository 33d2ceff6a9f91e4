"""The commands on data sets: `coke ingest`, `index`, `verify` and `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from coke.tools.options import CacheOption, DataArgument, IdsOption


def ingest(
    src: Annotated[
        str, typer.Argument(help="Folder, tar, parquet file or table of images; path or URL.")
    ],
    out: Annotated[str, typer.Argument(help="Where the data set goes, path or URL.")],
    ids: Annotated[
        Optional[Path],
        typer.Option("--ids", help="SRC is a data set: copy its images of this .npy file of ids."),
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Images per container; 0 for one.")] = 2000,
    workers: Annotated[Optional[int], typer.Option(help="Processes; all cores if unset.")] = None,
    resize_shorter: Annotated[
        Optional[int], typer.Option(help="Shrink images whose shorter side is longer than this.")
    ] = None,
    quality: Annotated[
        int, typer.Option(help="JPEG quality of images that are encoded again.")
    ] = 95,
    sixteen_bit: Annotated[
        str,
        typer.Option(help="16 bits to 8: high-byte, bits in use (9 to 15), or scale per image."),
    ] = "high-byte",
    max_pixels: Annotated[
        int, typer.Option(help="Reject images with more pixels than this.")
    ] = 178_956_970,
    orientation: Annotated[
        str, typer.Option(help="upright: apply the EXIF orientation; keep: ignore it.")
    ] = "upright",
    labels: Annotated[str, typer.Option(help="auto, folders or none.")] = "auto",
    source: Annotated[
        str, typer.Option(help="auto, arrow, cifar, folders, idx, imagenet, parquet, wds or table.")
    ] = "auto",
    check: Annotated[
        str, typer.Option(help="decode: every image; header: trust JPEGs whose header is sound.")
    ] = "decode",
    base: Annotated[
        Optional[Path], typer.Option(help="Older data set whose ids are kept; may be OUT.")
    ] = None,
    match: Annotated[
        str, typer.Option(help="key, or content: renamed files keep their ids, too.")
    ] = "key",
    dedupe: Annotated[
        Optional[str],
        typer.Option(help="Files of equal bytes: report lists them, drop stores one."),
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
    if ids is not None:
        others = {
            "workers": workers is not None,
            "resize-shorter": resize_shorter is not None,
            "quality": quality != 95,
            "sixteen-bit": sixteen_bit != "high-byte",
            "max-pixels": max_pixels != 178_956_970,
            "orientation": orientation != "upright",
            "labels": labels != "auto",
            "source": source != "auto",
            "check": check != "decode",
            "base": base is not None,
            "match": match != "key",
            "dedupe": dedupe is not None,
            "engine": engine != "process",
            "ray-address": ray_address is not None,
            "restart": restart,
            "strict": strict,
        }
        for name in (name for name, given in others.items() if given):
            raise ValueError(
                f"--{name} has no effect with --ids: stored images are copied as they are; leave "
                "it out"
            )
        from coke.tools.datasets.ingest_subset import ingest_subset

        ingest_subset(src, out, ids, shard_size=shard_size, format=format, overwrite=overwrite)
        return
    from coke.tools.datasets.ingest import ingest as run

    run(
        src,
        out,
        shard_size=shard_size,
        workers=workers,
        resize_shorter=resize_shorter,
        quality=quality,
        sixteen_bit=sixteen_bit,
        max_pixels=max_pixels,
        orientation=orientation,
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


def verify(
    data: DataArgument,
    decode: Annotated[str, typer.Option(help="How many images to decode, or `all`.")] = "200",
    cache_dir: CacheOption = None,
) -> None:
    """Recompute hashes, compare index and containers, decode images; exit 1 on any problem."""
    from coke.tools.datasets.verify import verify as run

    if decode != "all" and not decode.isdigit():
        raise ValueError(f"--decode is {decode!r}; give a number or `all`")
    number: Any = "all" if decode == "all" else int(decode)
    if run(data, decode=number, cache_dir=cache_dir):
        raise typer.Exit(1)


def inspect(
    data: DataArgument,
    ids: IdsOption = None,
    views: Annotated[
        Optional[str], typer.Option(help="Recipe or TOML file to draw a contact sheet of.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The contact sheet: a .png file.")] = None,
    images: Annotated[int, typer.Option(help="Images on the sheet.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides the crops, as in training.")] = 0,
    epoch: Annotated[int, typer.Option(help="First epoch whose views are drawn.")] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs side by side.")] = 1,
    loader: Annotated[str, typer.Option(help="auto, dali or pil.")] = "auto",
    cache_dir: CacheOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Tables of what a data set holds; with --views, a contact sheet of augmented views."""
    from coke.tools.datasets.inspect import inspect as run
    from coke.tools.datasets.inspect import save_sheet

    if views is None and out is not None:
        raise ValueError(f"--out {out} needs --views: the recipe to draw, or a TOML file of it")
    if views is None:
        run(data, ids=ids, cache_dir=cache_dir)
        return
    from coke.config.views import view_recipes

    recipes = view_recipes(views)
    if out is None:
        raise ValueError(f"--views {views} needs --out SHEET.png: where the contact sheet goes")
    save_sheet(
        data,
        recipes,
        out,
        ids=ids,
        images=images,
        seed=seed,
        epoch=epoch,
        epochs=epochs,
        backend=loader,
        cache_dir=cache_dir,
        overwrite=overwrite,
    )
