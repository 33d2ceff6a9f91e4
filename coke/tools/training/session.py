"""A run in its folder: the lock, the display, checkpoints, skipped steps, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from coke.clustering import HeadReport
from coke.config.config import Config
from coke.distributed.any_rank import AnyRank
from coke.distributed.process_group import barrier, is_main, on_main, peer_errors, world_size
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Batch
from coke.tools.evaluation.probe import OnlineProbe, ProbeResult
from coke.tools.runs.checkpoint import CheckpointName
from coke.tools.runs.checkpoint_writer import CheckpointWriter
from coke.tools.runs.interruption import Interruption, RunStopped
from coke.tools.runs.record import EpochRecord
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.run_lock import RunLock
from coke.tools.training.bad_steps import BadSteps
from coke.tools.training.layer_randomness import own_layer_randomness
from coke.tools.training.learner import Learner, Place, Step
from coke.tools.training.report import TrainReporter
from coke.tools.training.resume_point import ResumePoint
from coke.tools.training.training_loader import training_loader


class Session:
    """Context manager that holds a run folder while a :class:`Learner` is trained in it.

    On the way in it takes the folder's lock, and starts the run or restores the learner from the
    newest checkpoint. On the way out, however the run ends, it waits for the checkpoint that is
    being written and notes in ``status.json`` how the run ended.

    Args:
        resumes: go on from the newest checkpoint in ``run``; start a new run there if false.
        probe_data: labelled images for the online probe, if ``config.run.probe_every`` asks for it.
        wandb: a project on Weights & Biases that metrics also go to.

    Attributes:
        record: the record of the last epoch that ended.

    Raises:
        ValueError: the folder is in use, its checkpoint does not fit, too many steps in a row were
            not finite, or a checkpoint could not be written.
        RunStopped: a signal asked for the end; the run is saved.
    """

    record: EpochRecord

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        learner: Learner,
        index: ImageIndex,
        *,
        resumes: bool,
        probe_data: str | Path,
        wandb: str | None = None,
        console: Console,
    ) -> None:
        self._run = run
        self._config = config
        self._learner = learner
        self._index = index
        self._resumes = resumes
        self._wandb = wandb
        self._console = console
        self._loader = training_loader(config, index, config.recipes_at(0), learner.device)
        self._probe = (
            OnlineProbe(config, probe_data, learner.device) if config.run.probe_every else None
        )
        self._lr = 0.0

    def __enter__(self) -> Self:
        config, learner, run = self._config, self._learner, self._run
        with ExitStack() as stack:  # left in the reverse order, however the run ends
            on_main(partial(_hold, stack, run))
            if world_size() > 1:  # inside the lock, so that the run's status names a lost peer
                stack.enter_context(peer_errors(config.machine.rank_timeout))
            self._interruption = stack.enter_context(Interruption(AnyRank(learner.device)))
            stack.enter_context(own_layer_randomness(learner.device))
            self._next = self._restored() if self._resumes else self._started()
            self._reporter = stack.enter_context(
                TrainReporter(
                    config,
                    run,
                    self._console,
                    learner.precision,
                    learner.device,
                    self._next.epoch,
                    self._wandb,
                )
            )
            self._checkpoints = stack.enter_context(
                CheckpointWriter(run.checkpoints, config.run.keep_checkpoints, writes=is_main())
            )
            self._bad_steps = BadSteps(config.run.max_bad_steps, self._next.bad_in_a_row)
            self._best = run.best_epoch(config.run.keep_best)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, 0 being the initialisation scan."""
        yield from range(self._next.epoch, self._config.optimizer.epochs + 1)

    def batches(self, epoch: int) -> Iterator[tuple[Place, Batch]]:
        """The batches of an epoch that are left, each with its place in the run."""
        recipes = self._config.recipes_at(epoch)
        if recipes != self._loader.recipes:
            device = self._learner.device
            self._loader = training_loader(self._config, self._index, recipes, device)
        start, steps = self._next, self._loader.steps_per_epoch
        self._meter = self._reporter.start_epoch(
            epoch, steps, left_out=self._loader.left_out, done=start.step, state=start.meter
        )
        loader = self._loader
        batches = loader.resume(start.loader) if start.loader else loader.epoch(epoch)
        for step, batch in enumerate(self._meter.timing_data(batches), start=start.step):
            yield Place(epoch=epoch, step=step, steps=steps), batch

    def count(self, place: Place, step: Step) -> None:
        """Counts a step; saves a checkpoint within the epoch if one is due, or asked for."""
        self._lr = step.lr
        self._meter.update(step.images, step.loss, step.valid)
        self._meter.sample.add(step.rows)
        self._reporter.skipped(self._meter, self._bad_steps.add(place, step))
        if place.step + 1 < place.steps:
            taken, every = place.taken + 1, self._config.run.checkpoint_every
            stops = self._interruption.requested()
            if stops or (every > 0 and taken % every == 0):
                self._save_within(place)
            if stops:
                self._stop(place.epoch, taken)
        self._checkpoints.raise_error()

    def end_epoch(self, heads: list[HeadReport]) -> None:
        """Probes if it is time, records the epoch, saves its checkpoint."""
        self._reporter.skipped(self._meter, self._bad_steps.read_all())
        epoch, probe = self._meter.epoch, ProbeResult()
        ranks = on_main(self._meter.sample.ranks)
        if self._probe is not None and self._probe.due(epoch):
            probe = on_main(partial(self._probe.measure, self._learner.model.backbone))
        self.record = self._reporter.end_epoch(self._meter, heads, self._lr, ranks, probe)
        self._best = self._run.best_epoch(self._config.run.keep_best)
        self._next = ResumePoint(epoch=epoch + 1, bad_in_a_row=self._bad_steps.in_a_row)
        self._save(CheckpointName(epoch=epoch), self._next)
        if epoch < self._config.optimizer.epochs and self._interruption.requested():
            self._stop(epoch, (epoch + 1) * self._loader.steps_per_epoch)

    def _started(self) -> ResumePoint:
        weights = self._learner.initial_weights
        on_main(partial(self._run.create, self._config, self._index, weights))
        return ResumePoint()

    def _restored(self) -> ResumePoint:
        state = self._run.newest_state()
        self._learner.load_state_dict(state, self._run.path)
        point = ResumePoint.of(state)
        on_main(partial(self._run.keep_metrics_before, point.epoch))
        return point

    def _save_within(self, place: Place) -> None:
        self._reporter.skipped(self._meter, self._bad_steps.read_all())
        point = ResumePoint(
            epoch=place.epoch,
            step=place.step + 1,
            loader=self._loader.state(),
            meter=self._meter.state(),
            bad_in_a_row=self._bad_steps.in_a_row,
        )
        self._save(CheckpointName(epoch=place.epoch, step=place.taken + 1), point)

    def _save(self, name: CheckpointName, point: ResumePoint) -> None:
        state: dict[str, Any] = self._learner.state_dict() | point.state_dict()
        self._checkpoints.save(name, state, self._best)

    def _stop(self, epoch: int, taken: int) -> None:
        self._checkpoints.wait()
        barrier()  # a rank that ends takes the others along: not before the run is saved
        raise RunStopped(
            f"{self._interruption.reason} in epoch {epoch}, after {taken} steps in all; saved in "
            f"{self._run.path}: go on with --resume"
        )


def _hold(stack: ExitStack, run: RunFolder) -> None:
    stack.enter_context(RunLock(run.path))
