"""``coke train``: the training loop of CoKe (Alg. 1 and Sec. 3.3).

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from coke.clustering import Clustering
from coke.config.config import Config
from coke.distributed.any_rank import AnyRank
from coke.distributed.process_group import (
    barrier,
    device_of_this_rank,
    is_main,
    on_main,
    peer_errors,
    process_group,
    rank,
    world_size,
)
from coke.files.byte_size import show_bytes
from coke.model.coke_model import build_model, check_view_sizes
from coke.model.finite import Statistics, finite_features
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
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.evaluation.probe import KnnProbe
from coke.tools.runs.checkpoint import Moment
from coke.tools.runs.checkpoint_writer import CheckpointWriter
from coke.tools.runs.initial_weights import load_initial_weights
from coke.tools.runs.interruption import Interruption, RunStopped
from coke.tools.runs.run_folder import AUTO, RESUME, START, RunFolder
from coke.tools.runs.run_lock import RunSession
from coke.tools.training.bad_steps import BadSteps
from coke.tools.training.memory_estimate import check_budget, mean_pixels
from coke.tools.training.metric_sinks import check_wandb
from coke.tools.training.micro_batches import global_batch
from coke.tools.training.report import EpochRecord, TrainReporter
from coke.tools.training.step import scan_batch, train_step
from coke.tools.training.training_loader import training_loader
from coke.tools.training.training_state import (
    Progress,
    Trained,
    own_layer_randomness,
    seed_layers,
)


def train(
    config: Config,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool | str = False,
    init_from: str | Path | None = None,
    probe_data: str | Path | None = None,
    wandb: str | None = None,
    console: Console | None = None,
) -> EpochRecord:
    """Trains a representation and writes it, as it goes on, to a run folder.

    Epoch 0 is the initialisation scan: forward passes that give every image its first labels. In
    every later epoch a batch is trained towards its labels of the epoch before, against the centers
    of the epoch before, and then clustered anew.

    Args:
        config: the settings, see :data:`coke.presets`.
        data: a data set made by ``coke ingest``, or a folder whose ``train`` is one; a path or a
            URL.
        out: the run folder.
        resume: continue the run in ``out`` from its newest checkpoint; with ``"auto"`` continue
            where there is one, start where there is none, and return where the run is complete.
        init_from: weights to start a new run from, see
            :func:`coke.tools.runs.initial_weights.load_initial_weights`.
        probe_data: labelled images for the online probe (``config.run.probe_every``); ``data`` when
            None.
        wandb: a project on Weights & Biases that metrics also go to.

    Returns: the record of the last epoch.

    Raises:
        ValueError: settings, data set or run folder do not fit, before any work where possible; too
            many steps in a row were not finite; a checkpoint could not be written.
        RunStopped: a signal asked for the end; the run is saved.
    """
    mode = _mode(resume)
    _check_options(config, mode, init_from, probe_data, wandb)
    device = resolve_device(device_of_this_rank(config.machine.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events and streams are those of the current device
    with process_group(device, config.machine.rank_timeout):
        return _train(
            config,
            data,
            out,
            device,
            mode=mode,
            init_from=init_from,
            probe_data=probe_data or data,
            wandb=wandb,
            console=console or Console(quiet=not is_main()),
        )


def _train(
    config: Config,
    data: str | Path,
    out: str | Path,
    device: torch.device,
    *,
    mode: str,
    init_from: str | Path | None,
    probe_data: str | Path,
    wandb: str | None,
    console: Console,
) -> EpochRecord:
    """:func:`train` on one rank. All ranks do the same; rank 0 also shows, records and saves."""
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.machine.cache_dir or None)
    _check_batches(config, index.n_live)
    precision = resolve_precision(config.machine.precision, device)
    run = RunFolder(out)
    resuming = on_main(lambda: run.resumes(mode, config, index))
    if resuming and on_main(lambda: run.is_complete(config.optimizer.epochs)):
        complete = f"run {out} is complete: all {config.optimizer.epochs} epochs are done"
        if mode == RESUME:
            raise ValueError(complete)
        console.print(complete, highlight=False)
        return _last_record(run)

    loader = training_loader(config, index, config.recipes_at(0), device)
    _check_memory(config, index, precision, device, console)
    set_tensor_cores(precision)
    model = build_model(config.model, config.seed)
    check_view_sizes(model, config.data.view_sizes())
    weights = None
    if init_from is not None and not resuming:
        weights = load_initial_weights(model, init_from)
        console.print("\n".join(weights.lines()), highlight=False, markup=False)
    network = replicate(
        model,
        device,
        channels_last=config.machine.channels_last,
        checkpoint=config.machine.checkpoint_activations,
        compile=config.machine.compile,
    )
    optimizer = build_optimizer(model, config.scaled_optimizer)
    scaler = gradient_scaler(precision, device)
    settings = asdict(config.clustering)
    clustering = Clustering(
        n_ids=len(index),
        n_points=index.n_live,
        dim=config.model.dim,
        seed=config.seed,
        device=device,
        **settings,
    )
    probe = KnnProbe(config, probe_data, device) if config.run.probe_every else None
    trained = Trained(
        model=model,
        optimizer=optimizer,
        scaler=scaler,
        clustering=clustering,
        precision=precision,
    )

    with ExitStack() as stack:  # left in the reverse order, however the run ends
        on_main(lambda: _hold(stack, run))
        if world_size() > 1:
            stack.enter_context(
                peer_errors(config.machine.rank_timeout)
            )  # the run's status says it so too
        interruption = stack.enter_context(Interruption(AnyRank(device)))
        stack.enter_context(own_layer_randomness(device))
        progress = Progress()
        if resuming:
            progress = trained.load(run.newest_state(), run.path)
            on_main(lambda: run.keep_metrics_before(progress.epoch))
        else:
            on_main(lambda: run.create(config, index, weights))
        reporter = stack.enter_context(
            TrainReporter(config, run, console, precision, device, progress.epoch, wandb)
        )
        checkpoints = stack.enter_context(
            CheckpointWriter(run.checkpoints, config.run.keep_checkpoints, writes=is_main())
        )
        bad_steps = BadSteps(config.run.max_bad_steps, progress.bad_in_a_row)
        statistics = Statistics(model)
        best = run.best_epoch()

        for epoch in range(progress.epoch, config.optimizer.epochs + 1):
            if config.recipes_at(epoch) != loader.recipes:
                loader = training_loader(config, index, config.recipes_at(epoch), device)
            steps = loader.steps_per_epoch
            meter = reporter.start_epoch(
                epoch,
                steps,
                left_out=loader.left_out,
                done=progress.step,
                state=progress.meter,
            )
            batches = loader.resume(progress.loader) if progress.loader else loader.epoch(epoch)
            model.train()
            for step, batch in enumerate(meter.timing_data(batches), start=progress.step):
                views = [view.to(device, non_blocking=True) for view in batch.views]
                ids = batch.ids.to(device, non_blocking=True)
                images = sum(batch.sizes)
                lr = _learning_rate(config, epoch, step / steps)
                seed_layers(config.seed, epoch * steps + step, rank())
                statistics.keep()
                if epoch == 0:
                    features_BD = scan_batch(network, views, config, precision, batch.sizes)
                    features_BD, ids = global_batch(features_BD, ids, batch.sizes)
                    loss, finite = None, finite_features(features_BD)
                else:
                    set_learning_rate(optimizer, lr)
                    features_BD, loss, finite = train_step(
                        network,
                        optimizer,
                        views,
                        clustering.targets(ids),
                        clustering,
                        config,
                        precision,
                        scaler=scaler,
                        sizes=batch.sizes,
                    )
                    features_BD, ids = global_batch(features_BD, ids, batch.sizes)
                # A step that is not finite moves nothing: no weights, statistics, labels, centers.
                statistics.restore(unless=finite)
                clustering.step(features_BD, ids, where=finite)
                meter.update(images, loss, finite)
                reporter.skipped(
                    meter,
                    bad_steps.judge(finite, loss, epoch=epoch, step=step, ids=batch.ids, lr=lr),
                )

                done = step + 1
                if done < steps:
                    taken = epoch * steps + done
                    stopping = interruption.requested()
                    if stopping or _is_due(config.run.checkpoint_every, taken):
                        reporter.skipped(meter, bad_steps.settle())
                        moment = Moment(epoch=epoch, step=taken)
                        within = Progress(
                            epoch=epoch,
                            step=done,
                            loader=loader.state(),
                            meter=meter.state(),
                            bad_in_a_row=bad_steps.in_a_row,
                        )
                        checkpoints.save(moment, trained.state_dict(within), best)
                    if stopping:
                        checkpoints.wait()
                        barrier()  # a rank that ends takes the others along: not before it is saved
                        raise RunStopped(_farewell(run, interruption, epoch, taken))
                checkpoints.raise_error()

            reporter.skipped(meter, bad_steps.settle())
            heads = clustering.end_epoch()
            top1 = None
            if probe is not None and probe.due(epoch):
                top1 = on_main(partial(probe.top1, model.backbone))
            record = reporter.end_epoch(meter, heads, lr, top1)
            best = run.best_epoch()
            progress = Progress(epoch=epoch + 1, bad_in_a_row=bad_steps.in_a_row)
            checkpoints.save(Moment(epoch=epoch), trained.state_dict(progress), best)
            if epoch < config.optimizer.epochs and interruption.requested():
                checkpoints.wait()
                barrier()
                raise RunStopped(_farewell(run, interruption, epoch, (epoch + 1) * steps))
    return record


def _last_record(run: RunFolder) -> EpochRecord:
    """The record of the last epoch. Raises ValueError where the metrics are gone."""
    records = run.records()
    if not records:
        raise ValueError(f"run {run.path} is complete, but {run.metrics} is missing or empty")
    return EpochRecord.of(records[-1])


def _hold(stack: ExitStack, run: RunFolder) -> None:
    """Keeps the run folder for this run until the stack is left."""
    stack.enter_context(RunSession(run.path))


def _mode(resume: bool | str) -> str:
    mode = resume if isinstance(resume, str) else (RESUME if resume else START)
    if mode not in (START, RESUME, AUTO):
        raise ValueError(f"resume is {resume!r}; give True, False or {AUTO!r}")
    return mode


def _check_options(
    config: Config,
    mode: str,
    init_from: str | Path | None,
    probe_data: str | Path | None,
    wandb: str | None,
) -> None:
    """Refuses options that do not go together, or that nothing would come of."""
    if mode == RESUME and init_from is not None:
        raise ValueError("--init-from starts a new run, --resume continues one: give one of them")
    if probe_data is not None and config.run.probe_every == 0:
        raise ValueError("--probe-data needs --probe-every N: how many epochs between two probes")
    if wandb is not None:
        check_wandb()


def _learning_rate(config: Config, epoch: int, share: float) -> float:
    """After a share 0..1 of an epoch; the scan learns nothing."""
    if epoch == 0:
        return 0.0
    done = epoch - 1 + share
    return learning_rate(config.scaled_optimizer, progress=done)


def _is_due(every: int, taken: int) -> bool:
    return every > 0 and taken % every == 0


def _farewell(run: RunFolder, interruption: Interruption, epoch: int, taken: int) -> str:
    return (
        f"{interruption.reason} in epoch {epoch}, after {taken} steps in all; saved in "
        f"{run.path}: go on with --resume"
    )


def _check_memory(
    config: Config,
    index: ImageIndex,
    precision: str,
    device: torch.device,
    console: Console,
) -> None:
    """Where there is a ``config.machine.memory_budget``, shows what a rank needs or refuses it."""
    if config.machine.memory_budget:
        estimate = on_main(
            lambda: check_budget(
                config,
                config.recipes_at(config.optimizer.epochs),
                n_ids=len(index),
                pixels=mean_pixels(index),
                world=world_size(),
                precision=precision,
                device=device,
            )
        )
        console.print(
            f"memory of a rank, estimated: {show_bytes(estimate.total)} ({estimate})",
            highlight=False,
        )


def _check_batches(config: Config, n: int) -> None:
    """Refuses batches that batch norm cannot train on: it needs two images in every piece."""
    batch, pieces, ranks = config.data.batch_size, config.optimizer.accumulate, world_size()
    piece = batch // pieces
    if piece % ranks:
        raise ValueError(
            f"data.batch_size is {batch}: {ranks} ranks with optimizer.accumulate {pieces} need a "
            f"multiple of {ranks * pieces}"
        )
    if n < 2:
        raise ValueError(f"the data set has {n} image; training needs at least 2")
    if not config.data.drop_ragged and n % piece == 1:
        what = "batch" if pieces == 1 else f"of {pieces} pieces a batch"
        raise ValueError(
            f"data.batch_size is {batch}: with {n} images the last {what} has 1, too few for batch "
            "norm; use another batch size, or --set data.drop_ragged=true"
        )
    if config.data.drop_ragged and n < batch:
        raise ValueError(
            f"data.batch_size is {batch} but the data set has {n} images, and data.drop_ragged "
            "leaves a short batch out: use a smaller batch size"
        )
