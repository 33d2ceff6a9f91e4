"""`coke report`: a page about a run or a clustering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from coke.tools.options import EpochOption


def report(
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder of `coke train`, or a clustering of `coke cluster`."
        ),
    ],
    data: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[DATA]",
            help="A data set whose images are shown; for a clustering, its features.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page, a new file.")] = Path("report.html"),
    split: Annotated[
        Optional[str], typer.Option(help="Split to take from a folder of splits; train if unset.")
    ] = None,
    features: Annotated[
        Optional[Path],
        typer.Option(help="Features of RUN and DATA that `coke embed` wrote; embeds if unset."),
    ] = None,
    data_of_features: Annotated[
        Optional[str],
        typer.Option("--data", help="For a clustering: the data set whose images it is of."),
    ] = None,
    key: Annotated[
        Optional[str],
        typer.Option(help="For a clustering: member, tensor or column of the features."),
    ] = None,
    epoch: EpochOption = None,
    clusters: Annotated[
        Optional[int], typer.Option(help="Clusters with pictures, over all heads; 160 if unset.")
    ] = None,
    points: Annotated[
        Optional[int], typer.Option(help="Images on the map; 1,500 if unset.")
    ] = None,
    umap: Annotated[
        Optional[bool],
        typer.Option(help="Lay out the map by UMAP too; done where it is installed if unset."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed that draws the images.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 256,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is there.")
    ] = False,
) -> None:
    """Write a page about a run: clusters, neighbours, map, curves, what to try next."""
    from coke.tools.page.clustering_pictures import ClusteredFeatures, is_clustering
    from coke.tools.page.pictures import PictureSettings
    from coke.tools.page.report import report_clustering, report_run
    from coke.tools.page.run_pictures import RunImages

    given: dict[str, Any] = {"clusters": clusters, "points": points, "umap": umap}
    settings = PictureSettings(seed=seed, **{k: v for k, v in given.items() if v is not None})
    if is_clustering(subject):
        _refuse("a clustering", {"--features": features, "--epoch": epoch})
        if data is None:
            raise ValueError(
                f"{subject} is a clustering: name its features too, "
                f"`coke report {subject} FEATURES`"
            )
        source = ClusteredFeatures(
            features=Path(data), key=key, data=data_of_features, split=split, device=device
        )
        report_clustering(subject, source, settings, out=out, overwrite=overwrite)
        return
    _refuse("a run", {"--data": data_of_features, "--key": key})
    if data is None:
        _refuse("a run without DATA", {"--features": features, "--split": split, "--epoch": epoch})
    images = None
    if data is not None:
        images = RunImages(
            data=data,
            split=split,
            features=features,
            epoch=epoch,
            batch_size=batch_size,
            device=device,
        )
    report_run(subject, images, settings, out=out, overwrite=overwrite)


def _refuse(kind: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} {value} means nothing for {kind}; leave it out")
