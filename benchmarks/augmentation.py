"""The DALI graph against the PIL reference, pixel by pixel, and what a view costs.

    COKE_TEST_DATA=FOLDER python benchmarks/augmentation.py [--images 200] [--save]

Reads ``imagenet-sample.tar`` (500 ImageNet JPEGs in class folders) from the folder.

- Errors: both engines get equal parameters, drawn from the paper's ranges; each operation alone,
  then all of them together. Grey levels of 255, before normalisation.
- Beside them, what DALI's one-pass ``color_twist`` gives for the same colours.
- Speed: img/s of one, two and eight views, in turns within one run, medians of the rounds.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from rich.console import Console
from rich.table import Table

from coke.config.view_recipe import (
    IMAGENET_MULTICROP,
    IMAGENET_SINGLE_VIEW,
    IMAGENET_TWO_VIEW,
    ViewRecipe,
)
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Batch, build_loader
from coke.pipeline.views.dali_views import DaliViews
from coke.pipeline.views.draw import ViewParameters, draw
from coke.pipeline.views.pil_reference import PilViews, reference_view
from coke.tools.datasets.ingest import ingest

BATCH = 50
THREADS = len(os.sched_getaffinity(0))
SIDE = 224
#: The paper's ranges with everything always drawn; pixels come out as grey levels.
DRAWN = replace(
    IMAGENET_SINGLE_VIEW,
    jitter_p=1.0,
    gray_p=0.0,
    blur_p=1.0,
    solarize_p=1.0,
    mean=(0.0, 0.0, 0.0),
    std=(1 / 255, 1 / 255, 1 / 255),
)
NEUTRAL = {
    "flip": 0, "brightness": 1, "contrast": 1, "saturation": 1, "hue_degrees": 0, "blur_sigma": 0,
    "solarize": 0,
}  # fmt: skip
JITTER = ("brightness", "contrast", "saturation", "hue_degrees")
#: Row of the table: which of the drawn values it keeps.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "crop and resize": (),
    "flip": ("flip",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturation",),
    "hue": ("hue_degrees",),
    "jitter (all four)": JITTER,
    "grayscale": (),
    "blur": ("blur_sigma",),
    "solarize": ("solarize",),
    "everything": (*JITTER, "blur_sigma", "solarize", "flip"),
}


def read_images(data: Path, count: int) -> tuple[list[NDArray[np.uint8]], list[tuple[int, int]]]:
    """Encoded images and their (height, width)."""
    encoded, sizes = [], []
    with tarfile.open(data / "imagenet-sample.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".JPEG"):
                continue
            stored = file.read()
            with Image.open(io.BytesIO(stored)) as image:
                sizes.append((image.height, image.width))
            encoded.append(np.frombuffer(stored, dtype=np.uint8))
            if len(encoded) == count:
                break
    return encoded, sizes


def parameters(operation: str, ids: NDArray[np.int64], sizes: NDArray[np.int64]) -> ViewParameters:
    """Drawn values of one operation; all others do nothing."""
    drawn = draw(DRAWN, seed=0, epoch=0, view=0, ids=ids, heights=sizes[:, 0], widths=sizes[:, 1])
    kept = OPERATIONS[operation]
    neutral = {
        name: np.full_like(getattr(drawn, name), value)
        for name, value in NEUTRAL.items()
        if name not in kept
    }
    if operation == "grayscale":
        neutral["saturation"] = np.zeros_like(drawn.saturation)
    return replace(drawn, **neutral)


def exact_crops(ids: NDArray[np.int64], sizes: NDArray[np.int64], side: int) -> ViewParameters:
    """Crops of exactly ``side`` pixels: nothing is resized, so box and decoder are compared."""
    plain = parameters("crop and resize", ids, sizes)
    height, width = (np.full_like(plain.height, side) for _ in range(2))
    top = (plain.top % (sizes[:, 0] - side + 1)).astype(np.int32)
    left = (plain.left % (sizes[:, 1] - side + 1)).astype(np.int32)
    return replace(plain, top=top, left=left, height=height, width=width)


def engine_errors(
    recipe: ViewRecipe,
    encoded: list[NDArray[np.uint8]],
    each: ViewParameters,
    engine: DaliViews,
) -> NDArray[np.float32]:
    """Absolute differences of the two engines, in grey levels, for all images."""
    batches = []
    for first in range(0, len(encoded), BATCH):
        part = {name: value[first : first + BATCH] for name, value in vars(each).items()}
        batches.append((encoded[first : first + BATCH], [ViewParameters(**part)]))
    pairs = zip(engine.stream(iter(batches)), PilViews([recipe]).stream(iter(batches)), strict=True)
    return np.concatenate([(a[0] - b[0]).abs().numpy() for a, b in pairs])


@pipeline_def  # type: ignore[untyped-decorator]
def color_twist_pipeline() -> Any:
    """The four colour operations as DALI's documentation has them: one linear operator."""
    image = fn.external_source(name="image", dtype=types.UINT8, ndim=3, layout="HWC")
    values = {
        name: fn.external_source(name=name, dtype=types.FLOAT, ndim=0)
        for name in ("brightness", "contrast", "saturation", "hue")
    }
    return fn.color_twist(image, **values)


def color_twist_errors(
    encoded: list[NDArray[np.uint8]], plain: ViewParameters, each: ViewParameters
) -> NDArray[np.float32]:
    """The same differences for ``color_twist`` on views that the reference cropped."""
    pipe = color_twist_pipeline(
        batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_async=False,
        exec_pipelined=False,
    )  # fmt: skip
    pipe.build()
    found = []
    for row, stored in enumerate(encoded):
        image = Image.open(io.BytesIO(stored.tobytes())).convert("RGB")
        view = reference_view(image, DRAWN, plain, row).round().astype(np.uint8)
        pipe.feed_input("image", [view])
        for name, value in (
            ("brightness", each.brightness),
            ("contrast", each.contrast),
            ("saturation", each.saturation),
            ("hue", each.hue_degrees),
        ):
            pipe.feed_input(name, [value[row]])
        (twisted,) = pipe.run()
        expected = reference_view(image, DRAWN, each, row)
        found.append(np.abs(np.asarray(twisted.as_array()[0], dtype=np.float32) - expected))
    return np.stack(found)


def error_table(data: Path, count: int) -> Table:
    encoded, listed = read_images(data, count)
    sizes = np.array(listed, dtype=np.int64)
    ids = np.arange(len(encoded))
    table = Table(title=f"DALI against PIL, {len(encoded)} photos at {SIDE} px, grey levels")
    for column in ("operation", "mean", "99 %", "max"):
        table.add_column(column, justify="left" if column == "operation" else "right")

    def add(name: str, error: NDArray[np.float32]) -> None:
        table.add_row(
            name, f"{error.mean():.2f}", f"{np.percentile(error, 99):.1f}", f"{error.max():.0f}"
        )

    side = 64
    large = np.flatnonzero(sizes.min(axis=1) >= side)
    small = replace(DRAWN, size=side)
    engine = DaliViews([small], batch_size=BATCH, device="cpu", threads=THREADS)
    boxes = exact_crops(ids[large], sizes[large], side)
    add("decode and crop box", engine_errors(small, [encoded[i] for i in large], boxes, engine))
    engine = DaliViews([DRAWN], batch_size=BATCH, device="cpu", threads=THREADS)
    for operation in OPERATIONS:
        each = parameters(operation, ids, sizes)
        add(operation, engine_errors(DRAWN, encoded, each, engine))
    table.add_section()
    plain = parameters("crop and resize", ids, sizes)
    for operation in ("brightness", "contrast", "saturation", "hue", "jitter (all four)"):
        each = parameters(operation, ids, sizes)
        add(f"color_twist: {operation}", color_twist_errors(encoded, plain, each))
    return table


def speed_table(data: Path, rounds: int, images: int) -> Table:
    crop = IMAGENET_SINGLE_VIEW.crop_and_flip()
    plain, single = "one view, crop and flip only", "one view (imagenet-1view)"
    #: What is timed, and what its cost is a multiple of.
    contenders: dict[str, tuple[tuple[ViewRecipe, ...], str]] = {
        plain: ((crop,), plain),
        "two views, crop and flip only": ((crop, crop), plain),
        single: ((IMAGENET_SINGLE_VIEW,), single),
        "the same recipe twice": ((IMAGENET_SINGLE_VIEW,) * 2, single),
        "two views (imagenet-2views)": (IMAGENET_TWO_VIEW, single),
        "2 x 224 + 6 x 96 (imagenet-multicrop)": (IMAGENET_MULTICROP, single),
    }
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(data / "imagenet-sample.tar") as tar:
            tar.extractall(Path(scratch) / "images", filter="data")
        folder = Path(scratch) / "dataset"
        ingest(Path(scratch) / "images", folder, console=Console(quiet=True))
        streams: dict[str, Iterator[Batch]] = {
            name: build_loader(
                ImageIndex(folder), recipes, batch_size=BATCH, backend="dali"
            ).epochs()
            for name, (recipes, _) in contenders.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, stream in streams.items():
                next(stream), next(stream)  # what the queue held ready is not counted
                started, seen = time.perf_counter(), 0
                while seen < images:
                    seen += len(next(stream).ids)
                rates[name].append(seen / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    table = Table(title=f"loader, CPU, {THREADS} cores, {date.today()}")
    for column in ("views", "img/s (median)", "range", "cost, one view = 1"):
        table.add_column(column, justify="left" if column == "views" else "right")
    for name, values in rates.items():
        base = contenders[name][1]
        table.add_row(
            name,
            f"{medians[name]:.0f}",
            f"{min(values):.0f}-{max(values):.0f}",
            f"{medians[base] / medians[name]:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="photos whose pixels are compared")
    parser.add_argument("--rounds", type=int, default=5, help="of the speed table; 0 leaves it out")
    parser.add_argument("--timed", type=int, default=500, help="images per measurement")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds imagenet-sample.tar")
    console = Console(record=True, width=100)
    console.print(error_table(Path(data), options.images))
    if options.rounds:
        console.print(speed_table(Path(data), options.rounds, options.timed))
    if options.save:
        path = Path(__file__).parent / "results" / f"augmentation-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
