"""``search.json``: the trainings of a search that are finished, so that none is done twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coke.files import durable
from coke.tools.evaluation.classifier import Cell


@dataclass(frozen=True, kw_only=True)
class Key:
    """What decides the outcome of a training, beside the settings that all of a file share.

    Attributes:
        network: name of its row.
        weights_sha256: hash over the backbone before the training.
        train_images, test_images: hash over the ids that it was trained on, and tested on.
        cell: learning rate and weight decay.
    """

    network: str
    weights_sha256: str
    train_images: str
    test_images: str
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished training.

    Attributes:
        top1, top5: accuracy in percent; ``top1`` is None if the training diverged.
        loss: mean cross entropy on the test images; None if the training diverged.
        seconds: that it took.
    """

    key: Key
    top1: float | None
    top5: float | None
    loss: float | None
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: by top-1; of equals, the lower loss."""
        if self.top1 is None or self.loss is None:
            return (-1.0, 0.0)
        return (self.top1, -self.loss)


class Trials:
    """The file and what is in it; every new trial is on the disk when :meth:`add` returns.

    Args:
        path: the file; it need not exist, its folder does.
        about: the settings that all trials share, for a reader of the file.

    Raises:
        ValueError: the file cannot be read.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self._about = about
        self._found = {trial.key: trial for trial in _read(path)}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Key) -> Trial | None:
        """The trial of this key, if it is finished."""
        return self._found.get(key)

    def add(self, trial: Trial) -> None:
        """Keeps a trial."""
        self._found[trial.key] = trial
        trials = [_flat(trial) for trial in self._found.values()]
        durable.write_json(self.path, {"about": self._about, "trials": trials}, indent=1)


def _flat(trial: Trial) -> dict[str, Any]:
    record = asdict(trial)
    key = record.pop("key")
    return {**key.pop("cell"), **key, **record}


def _read(path: Path) -> list[Trial]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["trials"]
        return [
            Trial(
                key=Key(
                    cell=Cell(lr=r.pop("lr"), weight_decay=r.pop("weight_decay")),
                    **{name: r.pop(name) for name in Key.__dataclass_fields__ if name != "cell"},
                ),
                **r,
            )
            for r in records
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); move it away, and the search begins "
            "anew"
        ) from error
