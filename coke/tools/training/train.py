"""``coke train``: the training loop of CoKe (Alg. 1 and Sec. 3.3)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from coke.config.config import Config
from coke.config.wishes import Wishes
from coke.distributed.process_group import is_main, on_main, process_group
from coke.tools.runs.record import EpochRecord
from coke.tools.runs.run_folder import AUTO, RESUME, RunFolder
from coke.tools.training.extension import extend as make_extension
from coke.tools.training.learner import Learner
from coke.tools.training.memory_ran_out import memory_errors
from coke.tools.training.session import Session
from coke.tools.training.settle import settled
from coke.tools.training.start import (
    COMPLETE,
    FRESH,
    RESUMED,
    check_fits,
    check_options,
    complete_line,
    decide,
    last_record,
    open_data,
    resume_mode,
    training_device,
)


def train(
    config: Config | Wishes,
    data: str | Path,
    out: str | Path,
    *,
    ids: Any = None,
    resume: bool | str = False,
    init_from: str | Path | None = None,
    extend: str | Path | None = None,
    probe_data: str | Path | None = None,
    wandb: str | None = None,
    console: Console | None = None,
) -> EpochRecord:
    """Trains a representation in a run folder. Returns the record of the last epoch.

    Epoch 0 is the initialisation scan: it gives every image its first labels. Every later epoch
    trains towards the labels of the epoch before, against the centers of the epoch before.

    Args:
        config: the settings, see :data:`coke.presets`; or wishes, from which a new run's settings
            are chosen by what data and machine are.
        data: a data set made by ``coke ingest``, or a folder with one named ``train``; or its URL.
        out: the run folder.
        ids: train on these images alone: (M,) ids, or the path of a ``.npy`` file of them. The run
            keeps a copy, which ``resume`` and ``extend`` use. Ids stay those of ``data``.
        resume: go on from the newest checkpoint in ``out``; ``"auto"`` also starts a new run, and
            returns if the run is complete.
        init_from: weights to start a new run from.
        extend: a finished run that the new one goes on from; ``config`` is then that of
            :func:`coke.tools.training.extension.extended_config`.
        probe_data: labelled images for the online probe; ``data`` if None.
        wandb: a project on Weights & Biases that metrics also go to.

    Raises:
        ValueError: settings, data set or run folder do not fit; too many steps in a row were not
            finite; a checkpoint could not be written.
        RunStopped: a signal asked for the end; the run is saved.
    """
    mode = resume_mode(resume)
    check_options(config, mode, init_from, probe_data, wandb, extend)
    device = training_device(config.machine)
    run = RunFolder(out)
    with process_group(device, config.machine.rank_timeout), memory_errors(run, config.machine):
        console = console or Console(quiet=not is_main())
        continues = mode == RESUME or (mode == AUTO and run.exists)
        source = run if continues else (None if extend is None else RunFolder(extend))
        index = open_data(data, ids, config.machine, continued=source)
        if isinstance(config, Wishes):
            on_main(partial(run.check_new, mode))
            config = settled(config, index, device, console)
        if extend is not None and not (mode == AUTO and run.exists):
            on_main(partial(make_extension, RunFolder(extend), run, config, index))
            mode = RESUME
        start = decide(run, mode, config, index)
        if start == COMPLETE:
            console.print(complete_line(run, config), highlight=False)
            return last_record(run)
        check_fits(config, index, device, console, resumed=start == RESUMED)
        learner = Learner.build(
            config,
            n_ids=len(index),
            n_points=index.n_live,
            device=device,
            init_from=init_from if start == FRESH else None,
        )
        if learner.initial_weights is not None:
            console.print("\n".join(learner.initial_weights.lines()), highlight=False, markup=False)
        with Session(
            run,
            config,
            learner,
            index,
            resumes=start == RESUMED,
            probe_data=probe_data or data,
            wandb=wandb,
            console=console,
        ) as session:
            for epoch in session.epochs():
                for place, batch in session.batches(epoch):
                    step = learner.scan(batch, place) if epoch == 0 else learner.step(batch, place)
                    session.count(place, step)
                session.end_epoch(learner.end_epoch())
        return session.record
