"""`coke train`: a run is started, or continued."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from coke.config.resolve import resolve_config
from coke.tools.messages import fail
from coke.tools.options import (
    BatchOption,
    CacheOption,
    ConfigOption,
    DataArgument,
    DeviceOption,
    IdsOption,
    LoaderOption,
    PresetOption,
    SetOption,
    ViewsOption,
)

if TYPE_CHECKING:
    from coke.config.config import Config


class ResumeCommand(TyperCommand):
    """A command whose ``--resume`` takes ``auto`` after it, or nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for argument, following in zip(args, [*args[1:], ""], strict=True):
            alone = argument == "--resume" and following != "auto"
            given.append("--resume=resume" if alone else argument)
        return super().parse_args(ctx, given)


def train(
    data: DataArgument,
    out: Annotated[Optional[Path], typer.Option(help="Run folder; runs/PRESET if unset.")] = None,
    ids: IdsOption = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    views: ViewsOption = None,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs after the scan.")] = None,
    hours: Annotated[
        Optional[float], typer.Option(help="As many epochs as this time holds; with --preset auto.")
    ] = None,
    batch_size: BatchOption = None,
    lr: Annotated[Optional[float], typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of weights, order and crops.")] = None,
    device: DeviceOption = None,
    loader: LoaderOption = None,
    cache_dir: CacheOption = None,
    checkpoint_every: Annotated[
        Optional[int], typer.Option(help="Steps between checkpoints; 0: ends of epochs only.")
    ] = None,
    probe_every: Annotated[
        Optional[int], typer.Option(help="Epochs between k-NN and linear probes; 0 for none.")
    ] = None,
    probe_data: Annotated[
        Optional[str], typer.Option(help="Labelled data set to probe on; DATA if unset.")
    ] = None,
    init_from: Annotated[
        Optional[Path], typer.Option(help="Weights to start from: a run, checkpoint or file.")
    ] = None,
    extend: Annotated[
        Optional[Path],
        typer.Option(help="Finished run to go on from, for --epochs more; it stays as it is."),
    ] = None,
    wandb: Annotated[
        Optional[str], typer.Option(help="Also report to this project on Weights & Biases.")
    ] = None,
    settings: SetOption = None,
    resume: Annotated[
        Optional[str],
        typer.Option(metavar="[auto]", help="Go on with the run in --out; `auto` also starts it."),
    ] = None,
    nproc: Annotated[
        Optional[int],
        typer.Option(help="Number of ranks to start on this machine, e.g. one per GPU."),
    ] = None,
    accumulate: Annotated[
        Optional[int], typer.Option(help="Compute a step in so many pieces, to save memory.")
    ] = None,
    memory_budget: Annotated[
        Optional[str],
        typer.Option(help="Most memory a rank may need, e.g. 16GiB; what is free if unset."),
    ] = None,
) -> None:
    """Learn a representation without labels: CoKe, on one view per image or on several."""
    if nproc is not None and "RANK" not in os.environ:
        _start_ranks(nproc)
    from coke.tools.runs.run_folder import AUTO, RESUME, START, RunFolder
    from coke.tools.training.train import train as run

    if resume not in (None, RESUME, AUTO):
        raise ValueError(f"--resume is {resume!r}; give --resume alone, or --resume auto")
    folder = None if out is None or resume is None else RunFolder(out)
    continues = folder is not None and (resume == RESUME or folder.exists)
    saved = folder.config() if folder is not None and continues else None
    given = {
        "seed": seed,
        "data": {"views": views, "batch_size": batch_size, "loader": loader},
        "optimizer": {"epochs": epochs, "lr": lr, "accumulate": accumulate},
        "run": {"checkpoint_every": checkpoint_every, "probe_every": probe_every},
        "machine": {"device": device, "cache_dir": cache_dir, "memory_budget": memory_budget},
    }
    if extend is None:
        resolved = resolve_config(preset, config, settings, given, saved, hours)
    else:
        resolved = _extended(extend, out, preset, config, settings, given, hours)
    if resume is not None and out is None:
        raise ValueError("--resume needs --out RUN: the run to continue")
    run(
        resolved,
        data,
        out or Path("runs") / resolved.preset,
        ids=ids,
        resume=resume or START,
        init_from=init_from,
        extend=extend,
        probe_data=probe_data,
        wandb=wandb,
    )


def _extended(
    extend: Path,
    out: Path | None,
    preset: str | None,
    config: Path | None,
    settings: list[str] | None,
    given: dict[str, Any],
    hours: float | None,
) -> Config:
    """The settings of a run that extends another."""
    from coke.config.config import Config
    from coke.tools.runs.run_folder import RunFolder
    from coke.tools.training.extension import check_kept, extended_config

    more, lr = given["optimizer"].pop("epochs"), given["optimizer"].pop("lr")
    if out is None or more is None:
        raise ValueError(
            "--extend needs --out NEW, the folder of the new run, and --epochs MORE, how many "
            "epochs to add"
        )
    saved = RunFolder(extend).config()
    resolved = resolve_config(preset, config, settings, given, saved, hours)
    assert isinstance(resolved, Config)  # as there is a saved one
    check_kept(saved, resolved, extend)
    return extended_config(resolved, more=more, lr=lr)


def _start_ranks(nproc: int) -> None:
    """Runs this same command as ``nproc`` ranks, and ends as they do."""
    from coke.distributed.launch import launch

    outcome = launch(nproc, sys.argv[1:])
    if outcome.message is not None:
        fail(outcome.message, outcome.status)
    sys.exit(outcome.status)
