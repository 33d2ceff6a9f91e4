"""``coke train --extend``: a new run that starts where a finished one ended."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from coke.config.config import MAY_DIFFER_ON_RESUME, Config
from coke.config.overrides import differences
from coke.files import durable
from coke.model.coke_model import build_model
from coke.model.optimizer import learning_rate
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.networks import hash_of_weights
from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint
from coke.tools.runs.run_folder import START, RunFolder

#: In the new run's folder: where it comes from.
EXTENDED = "extended.json"


def extended_config(
    config: Config, *, more: int, lr: float | None = None, epochs: int | None = None
) -> Config:
    """The settings of a run that goes on after ``epochs`` epochs, for ``more`` further ones.

    The learning rate restarts once and falls to ``final_lr`` in a cosine. Views keep their full
    size, and alpha keeps its last value. A run of these settings from the start is the finished
    run and its extension.

    Args:
        config: of the finished run.
        lr: the rate to restart from, in the unit of ``optimizer.lr``. If None, the rate that a run
            of all these epochs would have had at this place.
        epochs: of the finished run; ``config.optimizer.epochs`` if None.

    Raises:
        ValueError: ``more`` or ``lr`` is not positive.
    """
    done = config.optimizer.epochs if epochs is None else epochs
    if more < 1:
        raise ValueError(f"--epochs is {more}; give how many epochs to add, 1 or more")
    whole = replace(config.optimizer, epochs=done + more, restart_epochs=(), restart_lrs=())
    restart = float(f"{learning_rate(whole, progress=done):.4g}") if lr is None else lr
    return config.changed(
        optimizer={
            "epochs": done + more,
            "restart_epochs": (*config.optimizer.restart_epochs, done),
            "restart_lrs": (*config.optimizer.restart_lrs, restart),
        }
    )


def check_kept(saved: Config, given: Config, run: Path) -> None:
    """Raises ValueError, naming both values, if a setting differs that an extension must keep."""
    differing = [
        line for line in differences(saved, given) if line.split(".")[0] not in MAY_DIFFER_ON_RESUME
    ]
    if differing:
        raise ValueError(
            f"--extend keeps the settings of {run}, except --epochs and --lr, [run] and [machine] "
            f"(saved != given): {'; '.join(differing)}. To change others, start from its weights "
            "with --init-from"
        )


def extend(source: RunFolder, out: RunFolder, config: Config, index: ImageIndex) -> None:
    """Makes a run folder that ``--resume`` continues: all or nothing; ``source`` is only read.

    Args:
        source: a finished run.
        out: the new run.
        config: of :func:`extended_config`.

    Raises:
        ValueError: ``source`` is no run or not finished, the data set is another, a setting
            differs, or ``out`` exists.
    """
    saved = source.config()
    done, restarts = saved.optimizer.epochs, config.optimizer.restart_epochs
    if not source.is_complete(done):
        raise ValueError(
            f"run {source.path} is not finished: --extend goes on where a run has ended; finish it "
            f"with --resume --out {source.path}"
        )
    if not restarts or restarts[-1] != done:
        raise ValueError(
            f"run {source.path} has {done} epochs, and the settings restart after "
            f"{list(restarts)}: take them from extended_config"
        )
    without = config.changed(
        optimizer={
            "epochs": done,
            "restart_epochs": restarts[:-1],
            "restart_lrs": config.optimizer.restart_lrs[:-1],
        }
    )
    check_kept(saved, without, source.path)
    source.check_data(index)
    out.resumes(START, config, index)  # refuses a folder that holds something
    state = source.state(done)
    del state["format_version"]
    model = build_model(config.model, config.seed)
    model.load_state_dict(state["model"])
    origin = {
        "run": str(source.path.resolve()),
        "epoch": done,
        "weights_sha256": hash_of_weights(model.backbone),
    }
    draft = out.path.parent / f".{out.path.name}.extending"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    made = RunFolder(draft)
    save_checkpoint(made.checkpoints, CheckpointName(epoch=done), state)
    durable.write_json(draft / EXTENDED, origin, indent=1)
    made.write_description(config, index)
    os.rename(draft, out.path)
    durable.flush(out.path.parent)
