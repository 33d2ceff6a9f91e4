"""A run's folder: its settings, its data set, its metrics, its checkpoints."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from coke.config.config import MAY_DIFFER_ON_RESUME, Config
from coke.config.overrides import differences, load_toml, to_toml, with_settings
from coke.files import durable
from coke.files.durable import draft_name
from coke.files.kind import entries
from coke.pipeline.dataset.chosen_ids import Ids, hash_of_ids
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.runs import run_lock
from coke.tools.runs.checkpoint import CheckpointName, list_checkpoints, load_checkpoint
from coke.tools.runs.weights_report import InitialWeights

#: How to treat a run folder: start a run, continue its run, or continue where there is one.
START, RESUME, AUTO = "start", "resume", "auto"
INITIAL_WEIGHTS = "initial_weights.json"
DATA, IDS = "data.json", "ids.npy"  # the data set; of a run on a subset, its ids, ascending
#: Where a record has each figure of the probe.
_PROBE_KEYS = {"knn": "probe", "linear": "linear_probe"}
#: Files that a process may leave if it ends before its run has started.
_WRITTEN_BEFORE = {run_lock.STATUS, DATA, IDS, INITIAL_WEIGHTS}
_BEFORE_A_RUN = {run_lock.LOCK, *_WRITTEN_BEFORE} | {
    draft_name(name) for name in (*_WRITTEN_BEFORE, "config.toml")
}


class RunFolder:
    """The folder of a run and its files.

    They are ``config.toml``, ``data.json``, ``ids.npy`` of a run on a subset, ``metrics.jsonl``,
    ``checkpoints/``, ``tensorboard/``, and the ``lock`` and ``status.json`` of the process that
    trains.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"

    @property
    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.path / "config.toml").is_file()

    def resumes(self, resume: str, config: Config, index: ImageIndex) -> bool:
        """Whether training continues the run in this folder; otherwise it starts one.

        Args:
            resume: ``"resume"`` continues, ``"start"`` starts a new run, ``"auto"`` continues
                where there is a checkpoint.

        Raises:
            ValueError: the folder, its settings or its data set do not allow it.
        """
        run_lock.check_unlocked(self.path)
        if resume == RESUME or (resume == AUTO and self.exists):
            self.check_resumable(config, index)
            if resume == RESUME:
                self.newest_checkpoint()
            return resume == RESUME or bool(list_checkpoints(self.checkpoints))
        self._check_free(may_hold_leftovers=resume == AUTO)
        return False

    def check_new(self, resume: str) -> None:
        """Raises ValueError unless a new run may start here, whatever its settings."""
        run_lock.check_unlocked(self.path)
        if resume == RESUME or (resume == AUTO and self.exists):
            raise ValueError(
                f"run {self.path} goes on with the settings in its config.toml: give those, not "
                "wishes"
            )
        self._check_free(may_hold_leftovers=resume == AUTO)

    def create(
        self, config: Config, index: ImageIndex, weights: InitialWeights | None = None
    ) -> None:
        """Writes the files of a new run, for a process that holds the folder's lock.

        ``config.toml`` is written last: a folder with this file holds a run.

        Args:
            weights: the report on initial weights; None for random ones.

        Raises:
            ValueError: the folder holds something already.
        """
        if self.exists and list_checkpoints(self.checkpoints):
            raise ValueError(_not_empty(self.path))
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.metrics.unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        if weights is not None:
            durable.write_json(self.path / INITIAL_WEIGHTS, asdict(weights), indent=1)
        self.write_description(config, index)

    def write_description(self, config: Config, index: ImageIndex) -> None:
        """Writes ``data.json``, ``ids.npy`` of a subset, and then ``config.toml``."""
        data: dict[str, Any] = {
            "folder": index.location,
            "count": len(index),
            "identity": index.identity,
        }
        (self.path / IDS).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        if index.subset_ids is not None:
            data["ids"] = {"images": len(index.subset_ids), "sha256": index.subset_sha256}
            array = io.BytesIO()
            np.save(array, index.subset_ids)
            durable.write_bytes(self.path / IDS, array.getvalue())
        durable.write_json(self.path / DATA, data, indent=1)
        durable.write_text(self.path / "config.toml", to_toml(config))

    def _check_free(self, *, may_hold_leftovers: bool) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(_not_empty(self.path))
        left = {path.name for path in entries(self.path)}
        if may_hold_leftovers and not self.exists and run_lock.LOCK in left:
            left -= _BEFORE_A_RUN
            left -= {"checkpoints"} if not list_checkpoints(self.checkpoints) else set()
        if left:
            raise ValueError(_not_empty(self.path))

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
            if line.split(".")[0] not in MAY_DIFFER_ON_RESUME
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
        saved = self.data()
        if saved["identity"] != index.identity:
            raise ValueError(
                f"run {self.path} was trained on another data set: its checkpoint holds labels of "
                f"{saved['count']} images of {saved['folder']} (keys {saved['identity'][:12]}), "
                f"{index.folder} has {len(index)} (keys {index.identity[:12]})"
            )
        ids = saved.get("ids", {"images": saved["count"], "sha256": None})
        if ids["sha256"] != index.subset_sha256:
            given = None if index.subset_ids is None else len(index.subset_ids)
            raise ValueError(
                f"run {self.path} was trained on {_named_ids(ids['images'], ids['sha256'])}, this "
                f"would be {_named_ids(given, index.subset_sha256)}: resume with the same --ids, "
                "or without --ids, which takes those of the run; or start another run"
            )

    def data(self) -> dict[str, Any]:
        """``data.json``: the data set that the run is trained on.

        ``folder``, ``count`` of its ids and ``identity``; on a subset also ``ids``: the number
        of its ``images``, and ``sha256``, of :func:`coke.pipeline.dataset.chosen_ids.hash_of_ids`.
        """
        found: dict[str, Any] = json.loads((self.path / DATA).read_text(encoding="utf-8"))
        return found

    def chosen_ids(self) -> Ids | None:
        """The ids (M,) of the subset that the run is trained on, ascending; None for all.

        Raises:
            ValueError: ``ids.npy`` is missing or not what ``data.json`` says.
        """
        said = self.data().get("ids")
        if said is None:
            return None
        path = self.path / IDS
        try:
            ids: Ids = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); the run is trained on these ids: give a copy of "
                "the file"
            ) from error
        if hash_of_ids(ids) != said["sha256"]:
            raise ValueError(f"{path} holds other ids than {self.path / DATA} says")
        return ids

    def subset_of(self, index: ImageIndex) -> ImageIndex:
        """The part of the run's data set that it is trained on; another data set as it is.

        Raises:
            ValueError: as :meth:`chosen_ids`.
        """
        if index.subset_ids is not None or self.data()["identity"] != index.identity:
            return index
        ids = self.chosen_ids()
        return index if ids is None else index.subset(ids, name=str(self.path / IDS))

    def newest_checkpoint(self) -> Path:
        """The checkpoint from which the run would continue.

        Raises:
            ValueError: there is none.
        """
        found = list_checkpoints(self.checkpoints)
        if not found:
            raise ValueError(
                f"run {self.path} has no checkpoint: it ended before its first; delete the folder "
                "and start again, or use --resume auto, which does"
            )
        return found[-1]

    def newest_state(self) -> dict[str, Any]:
        """The state in :meth:`newest_checkpoint`. Raises ValueError if it is damaged."""
        return load_checkpoint(self.newest_checkpoint())

    def is_complete(self, epochs: int) -> bool:
        """Whether the newest checkpoint is that of the last epoch."""
        newest = CheckpointName.of(self.newest_checkpoint())
        return newest.ends_epoch and newest.epoch >= epochs

    def state(self, epoch: int | None = None) -> dict[str, Any]:
        """The state at the end of an epoch.

        Args:
            epoch: the newest that has ended when None; the newest step if no epoch has ended.

        Raises:
            ValueError: there is no such checkpoint, or it is damaged.
        """
        newest = self.newest_checkpoint()
        found = {
            name.epoch: path
            for path in list_checkpoints(self.checkpoints)
            if (name := CheckpointName.of(path)).ends_epoch
        }
        if epoch is None:
            return load_checkpoint(found[max(found)] if found else newest)
        if epoch not in found:
            kept = ", ".join(map(str, sorted(found)))
            raise ValueError(
                f"run {self.path} keeps no checkpoint of epoch {epoch}, only of {kept}"
            )
        return load_checkpoint(found[epoch])

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds a line to ``metrics.jsonl`` and syncs it."""
        durable.append_text(self.metrics, json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, without an incomplete one of a run that was killed."""
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_text(errors="replace", encoding="utf-8").splitlines()
        return [found for line in lines if (found := _parsed(line)) is not None]

    def best(self, by: str = "knn") -> tuple[int, float] | None:
        """Epoch and top-1 of the best probe, the latest of equals; None without a probe.

        Args:
            by: ``"knn"`` or ``"linear"``.
        """
        key = _PROBE_KEYS[by]
        probed = [
            (float(r[key]), int(r["epoch"])) for r in self.records() if r.get(key) is not None
        ]
        if not probed:
            return None
        top1, epoch = max(probed)
        return epoch, top1

    def best_epoch(self, by: str = "knn") -> int | None:
        """The epoch of :meth:`best`."""
        best = self.best(by)
        return None if best is None else best[0]

    def keep_metrics_before(self, epoch: int) -> None:
        """Removes the records of epochs that run again after resuming."""
        if self.metrics.is_file():
            kept = [json.dumps(r) for r in self.records() if r["epoch"] < epoch]
            durable.write_text(self.metrics, "".join(f"{line}\n" for line in kept))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "epoch" in found else None


def _named_ids(images: int | None, sha256: str | None) -> str:
    """What a run is trained on, for messages."""
    if sha256 is None:
        return "all images of the data set"
    return f"{images:,} chosen ids (hash {sha256[:12]})"


def _not_empty(path: Path) -> str:
    return (
        f"run folder {path} exists and is not empty: continue it with --resume, or "
        "choose another --out"
    )
