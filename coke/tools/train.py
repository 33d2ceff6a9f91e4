"""``coke train``: the training loop of CoKe (Alg. 1 and Sec. 3.3).

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from coke.clustering import Clustering
from coke.config import Config
from coke.model.checkpoint import save_checkpoint
from coke.model.coke_model import build_model, check_view_sizes
from coke.model.optimizer import build_optimizer, learning_rate, set_learning_rate
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.index import ImageIndex, find_split
from coke.pipeline.loader import Loader, build_loader
from coke.tools.run_folder import RunFolder
from coke.tools.train_report import EpochRecord, TrainReporter
from coke.tools.train_step import scan_step, train_step


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
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.cache_dir or None)
    _check_batches(config, index.n_live)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    run = RunFolder(out)
    first_epoch = 0
    if resume:
        run.check_resumable(config, index)
    loader = _loader(config, index, device, epoch=0)
    model = build_model(config.model, config.seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_view_sizes(model, config.view_sizes())
    optimizer = build_optimizer(model, config.optimizer)
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
        first_epoch = int(state["epoch"]) + 1
        run.keep_metrics_before(first_epoch)
        if first_epoch > config.epochs:
            raise ValueError(f"run {out} is complete: all {config.epochs} epochs are done")
    else:
        run.create(config, index)

    reporter = TrainReporter(config, run, console or Console(), precision, device)
    with reporter:
        for epoch in range(first_epoch, config.epochs + 1):
            if config.recipes_at(epoch) != loader.recipes:
                loader = _loader(config, index, device, epoch)
            meter = reporter.start_epoch(epoch, loader.steps_per_epoch, left_out=loader.left_out)
            model.train()
            for step, batch in enumerate(meter.timing_data(loader.epoch(epoch))):
                views = [view.to(device, non_blocking=True) for view in batch.views]
                ids = batch.ids.to(device, non_blocking=True)
                if epoch == 0:
                    features_BD, loss, lr = scan_step(model, views, precision), None, 0.0
                else:
                    progress = epoch - 1 + step / loader.steps_per_epoch
                    lr = learning_rate(config.optimizer, progress=progress, epochs=config.epochs)
                    set_learning_rate(optimizer, lr)
                    targets = clustering.targets(ids)
                    features_BD, loss = train_step(
                        model, optimizer, views, targets, clustering, config, precision
                    )
                clustering.step(features_BD, ids)
                meter.update(len(ids), loss)
            record = reporter.end_epoch(meter, clustering.end_epoch(), lr)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "clustering": clustering.state_dict(),
                "epoch": epoch,
                "precision": precision,
            }
            save_checkpoint(run.checkpoints, epoch, state, config.keep_checkpoints)
    return record


def _loader(config: Config, index: ImageIndex, device: torch.device, epoch: int) -> Loader:
    return build_loader(
        index,
        config.recipes_at(epoch),
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        window=config.window,
        cache_gb=config.cache_gb,
        drop_ragged=config.drop_ragged,
        device=str(device),
        threads=config.threads or None,
        backend=config.loader,
    )


def _check_batches(config: Config, n: int) -> None:
    """Refuses batches that batch norm cannot train on: it needs two images."""
    if n < 2:
        raise ValueError(f"the data set has {n} image; training needs at least 2")
    if not config.drop_ragged and n % config.batch_size == 1:
        raise ValueError(
            f"batch_size is {config.batch_size}: with {n} images the last batch has 1, too few for "
            "batch norm; use another batch size, or --set drop_ragged=true"
        )
    if config.drop_ragged and n < config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size} but the data set has {n} images, and drop_ragged "
            "leaves a short batch out: use a smaller batch size"
        )
