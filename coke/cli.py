"""The command line: parse, build a config, call one function of ``coke.tools``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from coke.config import Config

app = typer.Typer(
    name="coke",
    help="Unsupervised visual representation learning by online constrained k-means.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it takes longer than everything else of a start
    context_settings={"max_content_width": 120},
)
eval_app = typer.Typer(help="Evaluate a run's frozen features.", no_args_is_help=True)
app.add_typer(eval_app, name="eval")


class ResumeCommand(TyperCommand):
    """A command whose ``--resume`` takes ``auto`` after it, or nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for argument, following in zip(args, [*args[1:], ""], strict=True):
            alone = argument == "--resume" and following != "auto"
            given.append("--resume=resume" if alone else argument)
        return super().parse_args(ctx, given)


# typer reads these annotations at run time, so they are spelled for the oldest Python it supports
DataArgument = Annotated[
    str, typer.Argument(help="A data set made by `coke ingest`: a folder, or its s3://... URL.")
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder made by `coke train`.")]
PresetOption = Annotated[
    Optional[str],
    typer.Option("--preset", help="Named settings, see docs/recipes.md; imagenet-1view if unset."),
]
ConfigOption = Annotated[Optional[Path], typer.Option("--config", help="TOML file of settings.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="Any setting, such as --set model.depth=18; repeatable."),
]
BatchOption = Annotated[Optional[int], typer.Option("--batch-size", help="Images per step.")]
LoaderOption = Annotated[
    Optional[str], typer.Option("--loader", help="auto, dali, pil or ffcv (to compare with).")
]
DeviceOption = Annotated[Optional[str], typer.Option("--device", help="auto, cpu, cuda, cuda:N.")]
EpochOption = Annotated[
    Optional[int], typer.Option("--epoch", help="Whose checkpoint; the newest if unset.")
]
TestOption = Annotated[
    Optional[str], typer.Option("--test", help="Test data set, where DATA holds only one.")
]


@app.command()
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
    from coke.tools.ingest import ingest as run

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


@app.command("index")
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
    from coke.tools.index_beton import index_beton as run

    run(file, out, image=image, label=label, id_field=id_field, overwrite=overwrite)


@app.command()
def verify(
    data: Annotated[Path, typer.Argument(help="A data set, or a folder of splits.")],
    decode: Annotated[str, typer.Option(help="How many images to decode, or `all`.")] = "200",
) -> None:
    """Recompute hashes, compare index and containers, decode images; exit 1 on any problem."""
    from coke.tools.verify import verify as run

    if decode != "all" and not decode.isdigit():
        raise ValueError(f"--decode is {decode!r}; give a number or `all`")
    if run(data, decode="all" if decode == "all" else int(decode)):
        raise typer.Exit(1)


@app.command()
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
    from coke.tools.inspect import inspect as run
    from coke.tools.inspect import save_sheet

    if views is None and out is not None:
        raise ValueError(f"--out {out} needs --views: the recipe to draw, or a TOML file of it")
    if views is None:
        run(data)
        return
    from coke.config import view_recipes

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


@app.command(cls=ResumeCommand)
def train(
    data: DataArgument,
    out: Annotated[Optional[Path], typer.Option(help="Run folder; runs/PRESET if unset.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    views: Annotated[Optional[int], typer.Option(help="Large views per image: 1 or 2.")] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs after the scan.")] = None,
    batch_size: BatchOption = None,
    lr: Annotated[Optional[float], typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Decides weights, order, crops.")] = None,
    device: DeviceOption = None,
    loader: LoaderOption = None,
    cache_dir: Annotated[
        Optional[str], typer.Option(help="Where remote data is kept; $COKE_CACHE if unset.")
    ] = None,
    checkpoint_every: Annotated[
        Optional[int], typer.Option(help="Steps between checkpoints; 0: ends of epochs only.")
    ] = None,
    probe_every: Annotated[
        Optional[int], typer.Option(help="Epochs between k-NN probes; 0 for none.")
    ] = None,
    probe_data: Annotated[
        Optional[str], typer.Option(help="Labelled data set to probe on; DATA if unset.")
    ] = None,
    init_from: Annotated[
        Optional[Path], typer.Option(help="Weights to start from: a run, checkpoint or file.")
    ] = None,
    wandb: Annotated[
        Optional[str], typer.Option(help="Project on Weights & Biases to report to, too.")
    ] = None,
    settings: SetOption = None,
    resume: Annotated[
        Optional[str],
        typer.Option(metavar="[auto]", help="Continue the run in --out; auto: or start it."),
    ] = None,
    nproc: Annotated[
        Optional[int], typer.Option(help="Ranks to start on this machine: one per GPU.")
    ] = None,
    accumulate: Annotated[
        Optional[int], typer.Option(help="Pieces a step is taken in, to save memory.")
    ] = None,
    memory_budget: Annotated[
        Optional[str], typer.Option(help="Such as 16GiB: refuse what a rank needs more for.")
    ] = None,
) -> None:
    """Learn a representation without labels: CoKe, on one view per image or on several."""
    if nproc is not None and "RANK" not in os.environ:
        _start_ranks(nproc)
    from coke.tools.run_folder import AUTO, RESUME, START, RunFolder
    from coke.tools.train import train as run

    if resume not in (None, RESUME, AUTO):
        raise ValueError(f"--resume is {resume!r}; give --resume alone, or --resume auto")
    folder = None if out is None or resume is None else RunFolder(out)
    continues = folder is not None and (resume == RESUME or folder.exists)
    saved = folder.config() if folder is not None and continues else None
    given = {
        "views": views,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "loader": loader,
        "cache_dir": cache_dir,
        "checkpoint_every": checkpoint_every,
        "probe_every": probe_every,
        "accumulate": accumulate,
        "memory_budget": memory_budget,
        "optimizer": None if lr is None else {"lr": lr},
    }
    resolved = _resolve(preset, config, settings, given, saved)
    if resume is not None and out is None:
        raise ValueError("--resume needs --out RUN: the run to continue")
    run(
        resolved,
        data,
        out or Path("runs") / resolved.preset,
        resume=resume or START,
        init_from=init_from,
        probe_data=probe_data,
        wandb=wandb,
    )


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
) -> None:
    """List training runs with their state, epochs, loss and best probe."""
    from coke.tools.runs import runs as run

    run(folder)


@app.command("bench-epoch")
def bench_epoch(
    data: DataArgument,
    preset: PresetOption = None,
    config: ConfigOption = None,
    views: Annotated[Optional[int], typer.Option(help="Large views per image: 1 or 2.")] = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    loader: LoaderOption = None,
    settings: SetOption = None,
    seconds: Annotated[float, typer.Option(help="Seconds per measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is reported.")] = 3,
    gpus: Annotated[int, typer.Option(help="Project an epoch on so many such devices.")] = 1,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also MoCo-v2, SwAV and CoKe's other forms.")
    ] = False,
    tune_threads: Annotated[
        bool, typer.Option("--tune-threads", help="Also splits of the cores.")
    ] = False,
    memory_budget: Annotated[str, typer.Option(help="What a GPU's peak must fit.")] = "16GiB",
    json_file: Annotated[
        Optional[Path], typer.Option("--json", help="Save the figures; replaced if there.")
    ] = None,
    html_file: Annotated[
        Optional[Path], typer.Option("--html", help="Save a page with charts; replaced if there.")
    ] = None,
) -> None:
    """Time every stage alone and in training; project an ImageNet epoch beside Table 6."""
    from coke.tools.bench_epoch import bench_epoch as run

    given = {"views": views, "batch_size": batch_size, "device": device, "loader": loader}
    run(
        _resolve(preset, config, settings, given),
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


@app.command()
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
    from coke.tools.embed import EmbedSettings
    from coke.tools.embed import embed as run

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


@app.command()
def cluster(
    features: Annotated[
        Path,
        typer.Argument(
            help=".npy, .npz, .parquet, .safetensors, a folder of such, or an embedding."
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
        Optional[str], typer.Option(help="Member, tensor or column, where a file has several.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Cluster features so that no cluster is smaller, or larger, than you say."""
    from coke.tools.cluster import ClusterSettings
    from coke.tools.cluster import cluster as run

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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data set and run.")] = Path("demo"),
) -> None:
    """Fashion-MNIST, from files to an evaluated representation, in minutes on two cores."""
    from coke.tools.demo import demo as run

    run(out)


@eval_app.command("knn")
def eval_knn(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    epoch: EpochOption = None,
    k: Annotated[int, typer.Option(help="Neighbours.")] = 20,
    temperature: Annotated[float, typer.Option(help="Of the neighbours' votes.")] = 0.07,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    baselines: Annotated[bool, typer.Option(help="Also random weights and raw pixels.")] = True,
) -> None:
    """Weighted k-nearest neighbours on cosine similarity, as in DINO."""
    from coke.tools.eval_knn import eval_knn as run

    run(
        run_folder,
        data,
        test=test,
        epoch=epoch,
        k=k,
        temperature=temperature,
        batch_size=batch_size,
        device=device,
        baselines=baselines,
    )


@eval_app.command("linear")
def eval_linear(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    epoch: EpochOption = None,
    fast: Annotated[bool, typer.Option("--fast", help="Cache center-crop features once.")] = False,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs of the classifier.")] = None,
    lr: Annotated[Optional[float], typer.Option(help="Learning rate at batch 256.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="1,024 if unset.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    baselines: Annotated[bool, typer.Option(help="Also random weights and raw pixels.")] = True,
) -> None:
    """A linear classifier on frozen features."""
    from coke.tools.eval_linear import eval_linear as run

    run(
        run_folder,
        data,
        test=test,
        epoch=epoch,
        fast=fast,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        device=device,
        baselines=baselines,
    )


def _start_ranks(nproc: int) -> None:
    """Runs this same command as ``nproc`` ranks, and ends as they do."""
    from coke.tools.launch import launch

    outcome = launch(nproc, sys.argv[1:])
    if outcome.message is not None:
        _fail(outcome.message, outcome.status)
    sys.exit(outcome.status)


def _resolve(
    preset: str | None,
    file: Path | None,
    assignments: list[str] | None,
    given: dict[str, Any],
    saved: Config | None = None,
) -> Config:
    """Settings in rising order of precedence: preset (or saved run), file, --set, options."""
    from coke.config import load_toml, parse_assignments, preset_named, with_settings

    layers: list[dict[str, Any]] = [{} if file is None else load_toml(file)]
    layers.append(parse_assignments(assignments or []))
    in_layers = [layer.pop("preset", None) for layer in layers]
    layers.append({key: value for key, value in given.items() if value is not None})
    named = preset or in_layers[1] or in_layers[0]
    if named is None and saved is not None:
        config = saved
    else:
        config = preset_named(named or "imagenet-1view")
    for layer in layers:
        config = with_settings(config, layer)
    return config


def main() -> None:
    """Entry point. A user's mistake ends in one line and exit status 2, a failing machine in 1, a
    run that a signal has stopped in 75.
    """
    from coke.tools.interruption import STOPPED_STATUS, RunStopped

    try:
        app()
    except RunStopped as stopped:
        _say(str(stopped), "stopped")
        sys.exit(STOPPED_STATUS)
    except ValueError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(str(error), 1)


def _fail(message: str, status: int) -> None:
    _say(message, "error")
    sys.exit(status)


def _say(message: str, kind: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]{kind}:[/] {escape(message)}", highlight=False
    )
