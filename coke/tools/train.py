"""``coke train``: the training loop of CoKe (Alg. 1 and Sec. 3.3).

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from coke.byte_size import show_bytes
from coke.clustering import Clustering
from coke.config import Config
from coke.model.checkpoint import save_checkpoint
from coke.model.coke_model import build_model
from coke.model.distributed import (
    device_of_this_rank,
    is_main,
    on_main,
    process_group,
    rank,
    ranks_of_this_machine,
    world_size,
)
from coke.model.optimizer import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
)
from coke.model.precision import (
    gradient_scaler,
    resolve_device,
    resolve_precision,
    set_tensor_cores,
)
from coke.model.replica import replicate
from coke.pipeline.index import ImageIndex, find_split
from coke.pipeline.loader import Loader, build_loader
from coke.tools.memory_estimate import check_budget, mean_pixels
from coke.tools.micro_batches import global_batch
from coke.tools.run_folder import RunFolder
from coke.tools.train_report import EpochRecord, TrainReporter
from coke.tools.train_step import scan_batch, train_step
from coke.tools.workers import default_workers


def train(
    config: Config,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> EpochRecord:
    """Trains a representation and writes it, epoch by epoch, to a run folder.

    Epoch 0 is the initialisation scan: forward passes that give every image its first labels. In
    every later epoch a batch is trained towards its labels of the epoch before, against the centers
    of the epoch before, and then clustered anew.

    Args:
        config: the settings, see :data:`coke.presets`.
        data: a data set made by ``coke ingest``, or a folder whose ``train`` is one; a path or a
            URL.
        out: the run folder.
        resume: continue the run in ``out`` from its newest checkpoint.

    Returns: the record of the last epoch.

    Raises:
        ValueError: settings, data set or run folder do not fit; before any work where possible.
    """
    device = resolve_device(device_of_this_rank(config.device))
    with process_group(device, config.rank_timeout):
        return _train(config, data, out, device, resume=resume, console=console)


def _train(
    config: Config,
    data: str | Path,
    out: str | Path,
    device: torch.device,
    *,
    resume: bool,
    console: Console | None,
) -> EpochRecord:
    """:func:`train` on one rank. All ranks do the same; rank 0 also shows, records and saves."""
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.cache_dir or None)
    _check_batches(config, index.n_live)
    precision = resolve_precision(config.precision, device)
    run = RunFolder(out)
    first_epoch = 0
    if resume:
        run.check_resumable(config, index)
    loader = _loader(config, index, device, epoch=0)
    _check_memory(config, index, precision, device, console)
    set_tensor_cores(precision)
    model = build_model(config.model, config.seed)
    network = replicate(
        model,
        device,
        channels_last=config.channels_last,
        checkpoint=config.checkpoint_activations,
        compile=config.compile,
    )
    optimizer = build_optimizer(model, config.scaled_optimizer)
    scaler = gradient_scaler(precision, device)
    settings = asdict(config.clustering)
    clustering = Clustering(
        n_ids=len(index), dim=config.model.dim, seed=config.seed, device=device, **settings
    )

    if resume:
        state = run.state()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        clustering.load_state_dict(state["clustering"])
        if state["precision"] != precision:
            raise ValueError(
                f"run {out} was trained in {state['precision']}, this would go on in {precision}; "
                f"add --set precision={state['precision']}, or use a machine like the first"
            )
        scaler.load_state_dict(state["scaler"])
        first_epoch = int(state["epoch"]) + 1
        on_main(lambda: run.keep_metrics_before(first_epoch))
        if first_epoch > config.epochs:
            raise ValueError(f"run {out} is complete: all {config.epochs} epochs are done")
    else:
        on_main(lambda: run.create(config, index))

    reporter = TrainReporter(
        config, run, console or Console(quiet=not is_main()), precision, device
    )
    with reporter:
        for epoch in range(first_epoch, config.epochs + 1):
            if config.view_at(epoch) != loader.recipes[0]:
                loader = _loader(config, index, device, epoch)
            meter = reporter.start_epoch(epoch, loader.steps_per_epoch)
            model.train()
            for step, batch in enumerate(meter.timing_data(loader.epoch(epoch))):
                views = [view.to(device, non_blocking=True) for view in batch.views]
                ids = batch.ids.to(device, non_blocking=True)
                if epoch == 0:
                    features_BD = scan_batch(network, views, config, precision, batch.sizes)
                    loss, lr = None, 0.0
                else:
                    progress = epoch - 1 + step / loader.steps_per_epoch
                    lr = learning_rate(
                        config.scaled_optimizer, progress=progress, epochs=config.epochs
                    )
                    set_learning_rate(optimizer, lr)
                    targets = clustering.targets(ids)
                    features_BD, loss = train_step(
                        network,
                        optimizer,
                        views,
                        targets,
                        clustering,
                        config,
                        precision,
                        scaler=scaler,
                        sizes=batch.sizes,
                    )
                features_BD, ids = global_batch(features_BD, ids, batch.sizes)
                clustering.step(features_BD, ids)
                meter.update(len(ids), loss)
            record = reporter.end_epoch(meter, clustering.end_epoch(), lr)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "clustering": clustering.state_dict(),
                "epoch": epoch,
                "precision": precision,
            }
            if is_main():
                save_checkpoint(run.checkpoints, epoch, state, config.keep_checkpoints)
    return record


def _loader(config: Config, index: ImageIndex, device: torch.device, epoch: int) -> Loader:
    return build_loader(
        index,
        [config.view_at(epoch)] * config.views,
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        window=config.window,
        cache_gb=config.cache_gb,
        drop_ragged=config.drop_ragged,
        world=world_size(),
        rank=rank(),
        device=str(device),
        threads=config.threads or max(1, default_workers() // ranks_of_this_machine()),
        backend=config.loader,
    )


def _check_memory(
    config: Config,
    index: ImageIndex,
    precision: str,
    device: torch.device,
    console: Console | None,
) -> None:
    """Where there is a ``config.memory_budget``, shows what a rank needs or refuses it."""
    if config.memory_budget:
        estimate = on_main(
            lambda: check_budget(
                config,
                [config.view_at(config.epochs)] * config.views,
                n_ids=len(index),
                pixels=mean_pixels(index),
                world=world_size(),
                precision=precision,
                device=device,
            )
        )
        (console or Console(quiet=not is_main())).print(
            f"memory of a rank, estimated: {show_bytes(estimate.total)} ({estimate})",
            highlight=False,
        )


def _check_batches(config: Config, n: int) -> None:
    """Refuses batches that batch norm cannot train on: it needs two images in every piece."""
    piece = config.batch_size // config.accumulate
    if piece % world_size():
        raise ValueError(
            f"batch_size is {config.batch_size}: {world_size()} ranks with accumulate "
            f"{config.accumulate} need a multiple of {world_size() * config.accumulate}"
        )
    if n < 2:
        raise ValueError(f"the data set has {n} image; training needs at least 2")
    if not config.drop_ragged and n % piece == 1:
        what = "batch" if config.accumulate == 1 else f"of {config.accumulate} pieces a batch"
        raise ValueError(
            f"batch_size is {config.batch_size}: with {n} images the last {what} has 1, too few "
            "for batch norm; use another batch size, or --set drop_ragged=true"
        )
    if config.drop_ragged and n < config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size} but the data set has {n} images, and drop_ragged "
            "leaves a short batch out: use a smaller batch size"
        )
