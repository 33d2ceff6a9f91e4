"""`coke bench-epoch`: what an epoch costs here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coke.config.resolve import resolve_config
from coke.tools.options import (
    BatchOption,
    ConfigOption,
    DataArgument,
    DeviceOption,
    LoaderOption,
    PresetOption,
    SetOption,
    ViewsOption,
)


def bench_epoch(
    data: DataArgument,
    preset: PresetOption = None,
    config: ConfigOption = None,
    views: ViewsOption = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    loader: LoaderOption = None,
    settings: SetOption = None,
    seconds: Annotated[float, typer.Option(help="Seconds per measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is reported.")] = 3,
    gpus: Annotated[int, typer.Option(help="Devices to project an ImageNet epoch for.")] = 1,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also time MoCo-v2, SwAV, and CoKe with more views.")
    ] = False,
    tune_threads: Annotated[
        bool, typer.Option("--tune-threads", help="Also find the best split of the cores.")
    ] = False,
    memory_budget: Annotated[
        str, typer.Option(help="GPU memory to compare the peak with.")
    ] = "16GiB",
    json_file: Annotated[
        Optional[Path], typer.Option("--json", help="Save the figures; replaced if there.")
    ] = None,
    html_file: Annotated[
        Optional[Path], typer.Option("--html", help="Save a page with charts; replaced if there.")
    ] = None,
) -> None:
    """Time every stage alone and in training; project an ImageNet epoch beside Table 6."""
    from coke.tools.bench.bench_epoch import bench_epoch as run

    given = {
        "data": {"views": views, "batch_size": batch_size, "loader": loader},
        "machine": {"device": device},
    }
    run(
        resolve_config(preset, config, settings, given),
        data,
        seconds=seconds,
        rounds=rounds,
        gpus=gpus,
        peers=peers,
        tune_threads=tune_threads,
        memory_budget=memory_budget,
        json_file=json_file,
        html_file=html_file,
    )
