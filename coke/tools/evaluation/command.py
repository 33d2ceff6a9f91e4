"""`coke eval ...`: how good a run's features are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coke.tools.options import DataArgument, EpochOption, IdsOption

eval_app = typer.Typer(help="Evaluate a run's frozen features.", no_args_is_help=True)

RunArgument = Annotated[Path, typer.Argument(help="A run folder made by `coke train`.")]
TestOption = Annotated[
    Optional[str], typer.Option("--test", help="Test data set, if DATA has no test split.")
]
BaselinesOption = Annotated[bool, typer.Option(help="Also evaluate random weights and raw pixels.")]
SizeOption = Annotated[
    Optional[int],
    typer.Option("--size", help="Side of the center crops in pixels; the run's if unset."),
]
AgainstOption = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--against", help="Also evaluate this run, checkpoint or file of weights; repeatable."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")]
ForwardOption = Annotated[int, typer.Option("--batch-size", help="Images per forward pass.")]
RatesOption = Annotated[
    Optional[list[float]],
    typer.Option(
        "--lr", help="Learning rate at batch 256; repeatable. 1, 0.1, 0.01, 0.001 if unset."
    ),
]
LabelledOnlyOption = Annotated[
    bool, typer.Option("--labelled-only", help="Leave out images without a class label.")
]


@eval_app.command("knn")
def eval_knn(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    ids: IdsOption = None,
    epoch: EpochOption = None,
    k: Annotated[int, typer.Option(help="Number of neighbours.")] = 20,
    temperature: Annotated[float, typer.Option(help="A vote is exp(cosine / temperature).")] = 0.07,
    batch_size: ForwardOption = 256,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """Weighted k-nearest neighbours on cosine similarity, as in DINO."""
    from coke.tools.evaluation.knn import eval_knn as run

    run(
        run_folder,
        data,
        test=test,
        train_ids=ids,
        epoch=epoch,
        k=k,
        temperature=temperature,
        batch_size=batch_size,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )


@eval_app.command("linear")
def eval_linear(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    ids: IdsOption = None,
    epoch: EpochOption = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="One center crop per image, no random crops.")
    ] = False,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs of the classifier.")] = None,
    lr: Annotated[Optional[float], typer.Option(help="Learning rate at batch 256.")] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Images per step; 1,024 if unset.")
    ] = None,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """A linear classifier on frozen features."""
    from coke.tools.evaluation.linear import eval_linear as run

    run(
        run_folder,
        data,
        test=test,
        train_ids=ids,
        epoch=epoch,
        fast=fast,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )


@eval_app.command("finetune")
def eval_finetune(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    ids: IdsOption = None,
    epoch: EpochOption = None,
    lr: RatesOption = None,
    weight_decay: Annotated[
        Optional[list[float]],
        typer.Option("--weight-decay", help="Repeatable; 1e-5, 1e-6 and 0 if unset."),
    ] = None,
    epochs: Annotated[
        Optional[int],
        typer.Option(help="Epochs of each training; 20,000 steps, at most 100, if unset."),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option("--batch-size", help="Images per step; 256 if unset.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the held-out part, the head and the crops.")] = 0,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """The whole network trained on the labels; learning rate and decay are searched."""
    from coke.tools.evaluation.finetune import eval_finetune as run

    run(
        run_folder,
        data,
        test=test,
        train_ids=ids,
        epoch=epoch,
        lr=lr or (),
        weight_decay=weight_decay or (),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )


@eval_app.command("lowshot")
def eval_lowshot(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    epoch: EpochOption = None,
    fraction: Annotated[
        Optional[list[float]],
        typer.Option(
            "--fraction", help="Share of the training images; repeatable. 0.01, 0.1 if unset."
        ),
    ] = None,
    ids: Annotated[
        Optional[list[Path]],
        typer.Option("--ids", help="A list of keys, file names or ids to use; repeatable."),
    ] = None,
    seeds: Annotated[
        Optional[int],
        typer.Option(help="Choices of images; 3 if unset, and 1 for --finetune."),
    ] = None,
    write_ids: Annotated[
        Optional[Path], typer.Option("--write-ids", help="Folder for lists of the chosen images.")
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Also fine-tune the whole network.")
    ] = False,
    lr: RatesOption = None,
    weight_decay: Annotated[
        Optional[list[float]],
        typer.Option("--weight-decay", help="Of the fine-tuning; repeatable. 0 if unset."),
    ] = None,
    epochs: Annotated[
        Optional[int],
        typer.Option(help="Of the fine-tuning; 60 for less than 5 % of the images, else 30."),
    ] = None,
    batch_size: Annotated[
        Optional[int],
        typer.Option(
            "--batch-size", help="Of the fine-tuning; 1/8 of the images, 16 to 256, if unset."
        ),
    ] = None,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """Classifiers learned from a few labelled images of each class."""
    from coke.tools.evaluation.lowshot import eval_lowshot as run

    run(
        run_folder,
        data,
        test=test,
        epoch=epoch,
        fractions=fraction or (),
        ids=ids or (),
        seeds=seeds,
        write_ids=write_ids,
        finetune=finetune,
        lr=lr or (),
        weight_decay=weight_decay or (),
        epochs=epochs,
        batch_size=batch_size,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )


@eval_app.command("clusters")
def eval_clusters(
    run_folder: RunArgument,
    data: DataArgument,
    split: Annotated[
        Optional[str], typer.Option(help="Of a folder of splits, the one to take; train if unset.")
    ] = None,
    ids: IdsOption = None,
    epoch: EpochOption = None,
    min_ratio: Annotated[
        float, typer.Option(help="k-means: smallest size as a share of images / clusters.")
    ] = 0.4,
    seeds: Annotated[int, typer.Option(help="k-means: starts; figures are means over them.")] = 3,
    batch_size: ForwardOption = 256,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """Clusters against classes: k-means of the features, and the run's own labels."""
    from coke.tools.evaluation.clusters import eval_clusters as run

    run(
        run_folder,
        data,
        split=split,
        train_ids=ids,
        epoch=epoch,
        min_ratio=min_ratio,
        seeds=seeds,
        batch_size=batch_size,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )


@eval_app.command("all")
def eval_all(
    run_folder: RunArgument,
    data: DataArgument,
    test: TestOption = None,
    epoch: EpochOption = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Also fine-tune the network: takes far longer.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure again what eval.json holds already.")
    ] = False,
    batch_size: ForwardOption = 256,
    size: SizeOption = None,
    device: DeviceOption = "auto",
    baselines: BaselinesOption = True,
    against: AgainstOption = None,
    labelled_only: LabelledOnlyOption = False,
) -> None:
    """All evaluations, from features computed once, and one table."""
    from coke.tools.evaluation.all import eval_all as run

    run(
        run_folder,
        data,
        test=test,
        epoch=epoch,
        finetune=finetune,
        again=again,
        batch_size=batch_size,
        size=size,
        device=device,
        baselines=baselines,
        against=against or (),
        labelled_only=labelled_only,
    )
