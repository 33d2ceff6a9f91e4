"""``coke embed``: features of a data set's images in a file, by id."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from coke.config.config import Config
from coke.config.presets import preset_named
from coke.config.view_recipe import ViewRecipe
from coke.files import journal
from coke.files.kind import kind_of_files
from coke.files.npy_rows import NpyRows
from coke.files.publish import claimed
from coke.files.workspace import Workspace
from coke.model.coke_model import CoKe, build_model, unit
from coke.model.precision import resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split, is_dataset
from coke.pipeline.remote.remote import location
from coke.tools.datasets.ingest_report import one_line
from coke.tools.evaluation.labelled_data import live_labels
from coke.tools.evaluation.representations import (
    Representation,
    calibrate,
    evaluation_loader,
    frozen,
    hash_of_weights,
    load_run,
    raw_pixels,
)
from coke.tools.features.feature_files import ARRAY, ARRAY_IDS, ARRAY_KEYS

FORMAT = "coke-embedding"
VERSION = 1
EMBEDDING = kind_of_files(
    "embedding",
    marker="embed.json",
    says=FORMAT,
    files=frozenset((ARRAY, ARRAY_IDS, ARRAY_KEYS, "classes.npy", "embed.json")),
)
LAYERS = ("backbone", "projector")
DTYPES = ("float32", "float16")
RANDOM, PIXELS = "random", "pixels"  # instead of a run: what evaluations compare with
_DEFAULT_PRESET = "imagenet-1view"
_SAVED_EVERY = 20.0  # seconds of work that an interruption may cost


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How images become features.

    Attributes:
        layer: ``"backbone"``, what evaluations look at, or ``"projector"``: of unit norm, what
            training clusters.
        epoch: whose checkpoint; the newest when None.
        preset: settings of ``random`` and ``pixels``, which have no run; ``imagenet-1view`` when
            None.
        size: side of the center crops in pixels; as in evaluations when None.
        batch_size: images per forward pass.
        dtype: of the file, ``"float32"`` or ``"float16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    layer: str = "backbone"
    epoch: int | None = None
    preset: str | None = None
    size: int | None = None
    batch_size: int = 256
    dtype: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ValueError(f"--layer is {self.layer!r}; choose one of {', '.join(LAYERS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What an embedding came to; ``embed.json`` holds the same.

    Attributes:
        rows, width: N and D.
        resumed: rows that an interrupted run had written.
        epoch: of the checkpoint; None without a run.
        seconds: of this run.
    """

    rows: int
    width: int
    resumed: int
    epoch: int | None
    seconds: float


def embed(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    settings: EmbedSettings | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> EmbedReport:
    """Writes a folder of features, ids, keys and classes of a data set, row by row.

    ``features.npy`` (N, D), ``ids.npy`` (N,) int64 ascending, ``keys.txt`` (a line per row),
    ``classes.npy`` (N,) int32 where images have classes (-1 = none), and ``embed.json``. Tombstones
    have no row. The view is that of evaluations: a center crop. The same command continues what was
    interrupted.

    Args:
        run: a run folder; or ``random``, an untrained network with the batch-norm statistics of the
            data; or ``pixels``, the images themselves.
        data: a data set, or a folder of splits.
        out: the new folder; it appears when it is complete.
        settings: the defaults when None.
        split: which one of a folder of splits; ``train`` when None.
        overwrite: replace an embedding (and nothing else) in ``out``.

    Raises:
        ValueError: no such run or data set, settings that do not fit, or an ``out`` that is taken.
    """
    console = console or Console()
    settings = settings or EmbedSettings()
    out = Path(out)
    device = resolve_device(settings.device)
    config, model, epoch = _source(str(run), settings)
    recipe = config.data.view.evaluation()
    if settings.size is not None:
        recipe = replace(recipe, size=settings.size)
    index = ImageIndex(_chosen_split(data, split))
    if not index.n_live:
        raise ValueError(f"{index.folder} holds no image; there is nothing to embed")
    with claimed(out, overwrite=overwrite, kind=EMBEDDING, console=console) as claim:
        started = time.monotonic()
        network = _network(model, settings.layer)
        if network is not None and str(run) == RANDOM:
            calibrate(network, index, config, recipe, settings.batch_size, device)
        about = {
            "format": FORMAT,
            "version": VERSION,
            "data": index.location,
            "identity": index.identity,
            "run": str(run) if str(run) in (RANDOM, PIXELS) else str(Path(run).resolve()),
            "epoch": epoch,
            "weights_sha256": None if network is None else hash_of_weights(network),
            "layer": None if network is None else settings.layer,
            "view": asdict(recipe),
            "batch_size": settings.batch_size,
            "dtype": settings.dtype,
        }
        plan = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        represent = raw_pixels if network is None else frozen(network, device)
        with claim.workspace(plan, "") as work:
            width, resumed = _write_features(
                work, plan, represent, index, config, recipe, settings, device, console
            )
            _write_companions(work.dataset, index)
            report = EmbedReport(
                rows=index.n_live,
                width=width,
                resumed=resumed,
                epoch=epoch,
                seconds=round(time.monotonic() - started, 3),
            )
            classes = index.manifest.classes
            text = json.dumps({**about, **asdict(report), "classes": classes}, indent=1)
            (work.dataset / "embed.json").write_text(text + "\n", encoding="utf-8")
            work.publish({})
    _show(
        report, PIXELS if network is None else settings.layer, settings.dtype, index, out, console
    )
    return report


def _source(run: str, settings: EmbedSettings) -> tuple[Config, CoKe | None, int | None]:
    """Settings, network (None for pixels) and epoch of what makes the features."""
    if run not in (RANDOM, PIXELS):
        if settings.preset is not None:
            raise ValueError(
                f"--preset {settings.preset} is for `random` and `pixels`; run {run} has settings "
                "of its own"
            )
        return load_run(run, settings.epoch)
    if settings.epoch is not None:
        raise ValueError(f"--epoch {settings.epoch} needs a run; `{run}` has no checkpoints")
    config = preset_named(settings.preset or _DEFAULT_PRESET)
    if run == RANDOM:
        return config, build_model(config.model, config.seed), None
    if settings.layer != "backbone":
        raise ValueError(f"--layer {settings.layer} is part of a network; `pixels` has none")
    return config, None, None


def _chosen_split(data: str | Path, split: str | None) -> str | Path:
    if split is None:
        return find_split(data, ("train",))
    place = location(data)
    if isinstance(place, Path) and is_dataset(place):
        raise ValueError(f"{data} is a single data set; leave out --split {split}")
    return find_split(data, (split,))


class _Unit(nn.Module):
    def forward(self, features_BD: Tensor) -> Tensor:
        return unit(features_BD)


def _network(model: CoKe | None, layer: str) -> nn.Module | None:
    if model is None or layer == "backbone":
        return None if model is None else model.backbone
    return nn.Sequential(model.backbone, model.projector, _Unit())


def _write_features(
    work: Workspace,
    plan: str,
    represent: Representation,
    index: ImageIndex,
    config: Config,
    recipe: ViewRecipe,
    settings: EmbedSettings,
    device: torch.device,
    console: Console,
) -> tuple[int, int]:
    """Their width, and how many rows were there from an interrupted run."""
    mark = work.journal / f"features{journal.SUFFIX}"
    path = work.dataset / ARRAY
    saved = journal.load(mark, plan)
    done, width = (0, 0) if saved is None else (saved[0]["rows"], saved[0]["width"])
    file = NpyRows(path, (index.n_live, width), settings.dtype, done=done) if done else None
    resumed, last_saved = done, time.monotonic()
    live = index.live_ids
    loader = evaluation_loader(index, config, recipe, settings.batch_size, device)
    try:
        with Progress(console=console, transient=True, disable=console.quiet) as progress:
            name = f"features of {index.folder.name}"
            task = progress.add_task(name, total=index.n_live, completed=done)
            for batch in loader.epoch(0, start=done):
                features_BD = represent(batch.views[0].to(device)).float().cpu()
                rows = np.arange(done, done + len(batch.ids))
                assert np.array_equal(batch.ids.numpy(), rows if live is None else live[rows])
                if not bool(torch.isfinite(features_BD.to(getattr(torch, settings.dtype))).all()):
                    raise ValueError(
                        f"features of ids {int(batch.ids[0])} to {int(batch.ids[-1])} are not "
                        f"finite in {settings.dtype}; " + _remedy(settings.dtype)
                    )
                if file is None:
                    width = features_BD.shape[1]
                    file = NpyRows(path, (index.n_live, width), settings.dtype)
                file.append(features_BD.numpy())
                done += len(rows)
                progress.advance(task, len(rows))
                if time.monotonic() - last_saved >= _SAVED_EVERY:
                    _save(file, mark, plan)
                    last_saved = time.monotonic()
    except KeyboardInterrupt:
        if file is not None:
            _save(file, mark, plan)
        raise
    finally:
        if file is not None:
            file.close()
    assert done == index.n_live
    return width, resumed


def _remedy(dtype: str) -> str:
    if dtype == "float16":
        return "use --dtype float32"
    return "the run's weights have diverged: choose an earlier checkpoint with --epoch"


def _save(file: NpyRows, mark: Path, plan: str) -> None:
    """Rows first, then the word that they are there."""
    file.flush()
    about = {"rows": file.rows, "width": file.shape[1]}
    journal.save(mark, plan, about, np.zeros(0, dtype=[("none", "u1")]))


def _write_companions(folder: Path, index: ImageIndex) -> None:
    live = index.live_ids
    ids_N = np.arange(len(index), dtype=np.int64) if live is None else live
    np.save(folder / ARRAY_IDS, ids_N)
    labels_N = live_labels(index)
    if (labels_N >= 0).any():
        np.save(folder / "classes.npy", labels_N.astype(np.int32))
    keys = index.keys
    with (folder / ARRAY_KEYS).open("w", encoding="utf-8", newline="\n") as lines:
        lines.writelines(f"{one_line(keys[i])}\n" for i in ids_N.tolist())


def _show(
    report: EmbedReport,
    layer: str,
    dtype: str,
    index: ImageIndex,
    out: Path,
    console: Console,
) -> None:
    table = Table(title=escape(f"{out}"), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    source = layer if report.epoch is None else f"{layer}, epoch {report.epoch}"
    for name, value in (
        ("features", f"{report.rows:,} x {report.width:,} {dtype} ({source})"),
        ("images", escape(index.location)),
        ("seconds", f"{report.seconds:.1f}"),
    ):
        table.add_row(name, value)
    if report.resumed:
        table.add_row("of them", f"{report.resumed:,} rows were there from an interrupted run")
    console.print(table, highlight=False)
