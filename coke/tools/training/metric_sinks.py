"""Where the numbers of an epoch go besides ``metrics.jsonl``: TensorBoard, Weights & Biases."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from coke.config.config import Config
from coke.files.durable import write_text
from coke.tools.runs.run_folder import RunFolder

WANDB_ID = "wandb.id"


class MetricSink(Protocol):
    """Takes the scalars of an epoch, by name."""

    def log(self, epoch: int, scalars: dict[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


def metric_sinks(
    config: Config, run: RunFolder, first_epoch: int, wandb: str | None, console: Console
) -> list[MetricSink]:
    """The sinks of a run; TensorBoard if it is installed.

    Args:
        first_epoch: of this process; what an earlier one logged of it and later ones is replaced.
        wandb: project on Weights & Biases, None for none.

    Raises:
        ValueError: Weights & Biases is asked for and not installed.
    """
    sinks: list[MetricSink] = []
    if wandb is not None:
        sinks.append(WandbSink(wandb, run.path, config))
    try:
        sinks.append(TensorBoardSink(run.tensorboard, first_epoch))
    except ImportError:
        console.print(
            "TensorBoard is not installed (`pip install tensorboard`): metrics go "
            f"to {run.metrics} only"
        )
    return sinks


class TensorBoardSink:
    """Event files in the run's folder."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = first_epoch if folder.exists() else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def log(self, epoch: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def check_wandb() -> Any:
    """The module ``wandb``. Raises ValueError, with the install line, if it is missing."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "--wandb needs Weights & Biases, which is not installed: `pip install 'coke[wandb]'`"
        ) from error
    return wandb


class WandbSink:
    """A run on Weights & Biases, the same one after a resume: its id is kept in the run's folder.

    What a resumed run logs again of an epoch it had logged is dropped there, as W&B does not go
    back in steps; ``metrics.jsonl`` has it.
    """

    def __init__(self, project: str, run: Path, config: Config) -> None:
        wandb = check_wandb()
        saved = run / WANDB_ID
        if not saved.is_file():
            write_text(saved, uuid.uuid4().hex + "\n")
        self._run: Any = wandb.init(
            project=project,
            name=run.resolve().name,
            id=saved.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(run),
            config=asdict(config),
        )

    def log(self, epoch: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=epoch)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
