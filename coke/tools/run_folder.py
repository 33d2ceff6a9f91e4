"""A run's folder: its settings, its data set, its metrics, its checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from coke.config import MACHINE_SETTINGS, Config, differences, load_toml, to_toml, with_settings
from coke.model.checkpoint import epoch_of, list_checkpoints, load_checkpoint
from coke.pipeline.index import ImageIndex


class RunFolder:
    """``config.toml``, ``data.json``, ``metrics.jsonl``, ``checkpoints/``, ``tensorboard/``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"

    def create(self, config: Config, index: ImageIndex) -> None:
        """Starts a new run.

        Raises:
            ValueError: the folder holds something already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(
                f"run folder {self.path} exists and is not empty: continue it with --resume, or "
                "choose another --out"
            )
        self.checkpoints.mkdir(parents=True)
        (self.path / "config.toml").write_text(to_toml(config))
        data = {"folder": index.location, "count": len(index)}
        data["identity"] = index.identity
        (self.path / "data.json").write_text(json.dumps(data, indent=1) + "\n")

    def config(self) -> Config:
        """The resolved configuration saved with the run."""
        path = self.path / "config.toml"
        if not path.is_file():
            raise ValueError(f"{self.path} is no training run: {path} is missing")
        return with_settings(Config(), load_toml(path))

    def check_resumable(self, config: Config, index: ImageIndex) -> None:
        """Raises ValueError, naming both values, where settings or data set differ."""
        differing = [
            line
            for line in differences(self.config(), config)
            if line.split(":")[0] not in MACHINE_SETTINGS
        ]
        if differing:
            raise ValueError(
                f"run {self.path} was started with other settings (saved != given): "
                + "; ".join(differing)
                + ". Resume with the saved ones, or start another run"
            )
        self.check_data(index)

    def check_data(self, index: ImageIndex) -> None:
        """Raises ValueError where ids of this data set do not mean what the run's ids mean."""
        saved = json.loads((self.path / "data.json").read_text())
        if saved["identity"] != index.identity:
            raise ValueError(
                f"run {self.path} was trained on another data set: its checkpoint holds labels of "
                f"{saved['count']} images of {saved['folder']} (keys {saved['identity'][:12]}), "
                f"{index.folder} has {len(index)} (keys {index.identity[:12]})"
            )

    def state(self, epoch: int | None = None) -> dict[str, Any]:
        """The checkpoint of an epoch; the newest when None.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        found = {epoch_of(path): path for path in list_checkpoints(self.checkpoints)}
        if not found:
            raise ValueError(
                f"run {self.path} has no checkpoint: it ended before its first; delete the folder "
                "and start again"
            )
        if epoch is None:
            epoch = max(found)
        if epoch not in found:
            kept = ", ".join(map(str, sorted(found)))
            raise ValueError(
                f"run {self.path} keeps no checkpoint of epoch {epoch}, only of {kept}"
            )
        return load_checkpoint(found[epoch])

    def append_metrics(self, record: dict[str, Any]) -> None:
        with self.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def keep_metrics_before(self, epoch: int) -> None:
        """Forgets records of epochs that will run again after a resume."""
        if not self.metrics.is_file():
            return
        kept = [line for line in self.metrics.read_text().splitlines() if _is_before(line, epoch)]
        partial = self.metrics.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        os.replace(partial, self.metrics)


def _is_before(line: str, epoch: int) -> bool:
    try:
        return bool(json.loads(line)["epoch"] < epoch)
    except ValueError:  # torn by whatever ended the run
        return False
