"""``coke embed``: features of a data set's images in a file, by id."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
from coke.files.kind import kind_of_files
from coke.files.publish import claimed
from coke.model.coke_model import CoKe, build_model, check_view_sizes, unit
from coke.model.inference import Inference, batch_for
from coke.model.precision import PRECISIONS, inference_precision, resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split, is_dataset
from coke.pipeline.loading.loader import Batch
from coke.pipeline.remote.remote import location
from coke.tools.console.tables import print_table
from coke.tools.datasets.ingest_report import one_line
from coke.tools.evaluation.labelled_data import live_labels
from coke.tools.evaluation.one_ahead import one_ahead
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
from coke.tools.features.feature_rows import FeatureRows

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
RANDOM, PIXELS = "random", "pixels"  # the two baselines of evaluations, in place of a run
_DEFAULT_PRESET = "imagenet-1view"


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How images become features.

    Attributes:
        layer: ``"backbone"``, whose output evaluations use; or ``"projector"``, whose unit vectors
            training clusters.
        epoch: epoch of the checkpoint; the newest one if None.
        preset: settings for ``random`` and ``pixels``, which have no run; ``imagenet-1view`` if
            None.
        size: side of the center crops in pixels; the one of evaluations if None.
        batch_size: images that are read at a time; if None as many as suit the device and the size.
        precision: ``"auto"``, ``"fp32"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``: that of the forward
            pass where the device has it, see :func:`coke.model.precision.inference_precision`. The
            run's own if None.
        dtype: type of the features in the file, ``"float32"`` or ``"float16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    layer: str = "backbone"
    epoch: int | None = None
    preset: str | None = None
    size: int | None = None
    batch_size: int | None = None
    precision: str | None = None
    dtype: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ValueError(f"--layer is {self.layer!r}; choose one of {', '.join(LAYERS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.precision is not None and self.precision not in PRECISIONS:
            choices = ", ".join(PRECISIONS)
            raise ValueError(f"--precision is {self.precision!r}; choose one of {choices}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What an embedding came to; ``embed.json`` holds the same.

    Attributes:
        rows, width: N and D.
        resumed: rows that an interrupted run had written.
        epoch: epoch of the checkpoint; None without a run.
        seconds: time that this run took.
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
    ids: Any = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> EmbedReport:
    """Writes the features, ids, keys and classes of a data set's images into a folder.

    ``features.npy`` (N, D), ``ids.npy`` (N,) int64 ascending, ``keys.txt`` (a line per row),
    ``classes.npy`` (N,) int32 if images have classes (-1 = none), and ``embed.json``. Ids without
    an image have no row. Images are center crops, as in evaluations. The same command continues an
    interrupted one.

    Args:
        run: a run folder; or ``random``, an untrained network with the batch-norm statistics of the
            data; or ``pixels``, the images themselves.
        data: a data set, or a folder of splits.
        out: the new folder; it appears when it is complete.
        settings: the defaults if None.
        split: the split to take from a folder of splits; ``train`` if None.
        ids: embed these images alone: (M,) ids, or the path of a ``.npy`` file of them.
        overwrite: replace an embedding, and nothing else, that is in ``out``.

    Raises:
        ValueError: no such run or data set, settings that do not fit, an ``out`` that is taken or
            cannot be written, or features that are not finite.
    """
    console = console or Console()
    settings = settings or EmbedSettings()
    out = Path(out)
    device = resolve_device(settings.device)
    config, model, epoch = _source(str(run), settings)
    recipe = config.data.view.evaluation()
    if settings.size is not None:
        recipe = replace(recipe, size=settings.size)
    if model is not None:
        check_view_sizes(model, {"the side of the crops (--size)": recipe.size})
    batch_size = settings.batch_size or batch_for(recipe.size, device)
    settings = replace(settings, batch_size=batch_size)
    precision = inference_precision(settings.precision or config.machine.precision, device)
    index = ImageIndex(chosen_split(data, split))
    if ids is not None:
        index = index.subset(ids)
    if not index.n_live:
        raise ValueError(f"{index.folder} holds no image; there is nothing to embed")
    with claimed(out, overwrite=overwrite, kind=EMBEDDING, console=console) as claim:
        started = time.monotonic()
        network = layer_network(model, settings.layer)
        if network is not None and str(run) == RANDOM:
            calibrate(network, index, config, recipe, batch_size, device)
        about = _about(run, index, epoch, network, recipe, settings, precision)
        plan = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        with claim.workspace(plan, "") as work:
            loader = evaluation_loader(index, config, recipe, batch_size, device)
            with FeatureRows(work, plan, index.n_live, settings.dtype) as rows:
                resumed, batches = rows.done, loader.epoch(0, start=rows.done)
                represent: Representation = raw_pixels
                if network is not None:
                    represent = frozen(network, device, rows.precision or precision)
                _write_features(rows, represent, index, batches, device, settings.dtype, console)
                about["precision"] = rows.precision
            _write_companions(work.dataset, index)
            report = EmbedReport(
                rows=index.n_live,
                width=rows.width,
                resumed=resumed,
                epoch=epoch,
                seconds=round(time.monotonic() - started, 3),
            )
            text = json.dumps(
                {**about, **asdict(report), "classes": index.manifest.classes}, indent=1
            )
            (work.dataset / "embed.json").write_text(text + "\n", encoding="utf-8")
            work.publish({})
    layer = PIXELS if network is None else settings.layer
    _show(report, layer, settings.dtype, index, out, console)
    return report


def _about(
    run: str | Path,
    index: ImageIndex,
    epoch: int | None,
    network: nn.Module | None,
    recipe: ViewRecipe,
    settings: EmbedSettings,
    precision: str,
) -> dict[str, Any]:
    """Everything that the features depend on; ``embed.json`` holds it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "data": index.location,
        "identity": index.identity,
        **({} if index.subset_ids is None else {"ids_sha256": index.subset_sha256}),
        "run": str(run) if str(run) in (RANDOM, PIXELS) else str(Path(run).resolve()),
        "epoch": epoch,
        "weights_sha256": None if network is None else hash_of_weights(network),
        "layer": None if network is None else settings.layer,
        "view": asdict(recipe),
        "batch_size": settings.batch_size,
        "precision": None if network is None else precision,
        "dtype": settings.dtype,
    }


def _source(run: str, settings: EmbedSettings) -> tuple[Config, CoKe | None, int | None]:
    """Settings, network (None for pixels) and checkpoint's epoch (None without a run)."""
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


def chosen_split(data: str | Path, split: str | None) -> str | Path:
    """The data set that is meant: ``data`` itself, or its split, ``train`` if None.

    Raises:
        ValueError: there is none.
    """
    if split is None:
        return find_split(data, ("train",))
    place = location(data)
    if isinstance(place, Path) and is_dataset(place):
        raise ValueError(f"{data} is a single data set; leave out --split {split}")
    return find_split(data, (split,))


class _Unit(nn.Module):
    def forward(self, features_BD: Tensor) -> Tensor:
        return unit(features_BD)


def layer_network(model: CoKe | None, layer: str) -> nn.Module | None:
    """The part of a model that gives the features of a layer; None without a model."""
    if model is None or layer == "backbone":
        return None if model is None else model.backbone
    return nn.Sequential(model.backbone, model.projector, _Unit())


def _write_features(
    rows: FeatureRows,
    represent: Representation,
    index: ImageIndex,
    batches: Iterable[Batch],
    device: torch.device,
    dtype: str,
    console: Console,
) -> None:
    """Appends the features of all images that have none yet."""
    live = index.live_ids
    with Progress(console=console, transient=True, disable=console.quiet) as progress:
        name = f"features of {index.folder.name}"
        task = progress.add_task(name, total=index.n_live, completed=rows.done)

        def features_of(batch: Batch) -> Tensor:
            return represent(batch.views[0].to(device, non_blocking=True)).float().cpu()

        for batch, features_BD in one_ahead(features_of, batches):
            if isinstance(represent, Inference):
                rows.precision = represent.precision
            at = np.arange(rows.done, rows.done + len(batch.ids))
            assert np.array_equal(batch.ids.numpy(), at if live is None else live[at])
            if not bool(torch.isfinite(features_BD.to(getattr(torch, dtype))).all()):
                raise ValueError(
                    f"features of ids {int(batch.ids[0])} to {int(batch.ids[-1])} are not "
                    f"finite in {dtype}; " + _remedy(dtype)
                )
            rows.append(features_BD.numpy())
            progress.advance(task, len(at))


def _remedy(dtype: str) -> str:
    if dtype == "float16":
        return "use --dtype float32"
    return "the run's weights have diverged: choose an earlier checkpoint with --epoch"


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
    print_table(console, table, highlight=False)
