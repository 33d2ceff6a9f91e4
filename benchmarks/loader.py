"""Images per second of the loader, beside what a user would write instead.

    COKE_TEST_DATA=FOLDER python benchmarks/loader.py [--rounds 5] [--save]

Reads ``imagenet-sample.tar`` (500 ImageNet JPEGs in class folders) from the folder, ingests it,
and times, in turns within one run, at 224 px with the paper's single-view recipe:

- coke: our order and index feeding DALI, on the CPU;
- PIL: the same recipe with the same parameters in PIL, one process;
- DALI's reader: ``fn.readers.webdataset`` on the same shards and indexes, and the same operators
  with DALI's own random numbers, as its documentation has it.

Reports the median over the rounds and the ratios of the medians. Batches end in torch tensors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coke.pipeline.index import ImageIndex
from coke.pipeline.loader import build_loader
from coke.pipeline.recipe import IMAGENET_SINGLE_VIEW, ViewRecipe
from coke.tools.ingest import ingest

BATCH = 64
THREADS = len(os.sched_getaffinity(0))


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def dali_reader_pipeline(folder: Path, recipe: ViewRecipe) -> Any:
    """The single-view recipe on DALI's webdataset reader, all randomness DALI's."""
    encoded = fn.readers.webdataset(
        paths=sorted(map(str, folder.glob("*.tar"))),
        index_paths=sorted(map(str, folder.glob("*.idx"))),
        ext=["jpg"],
        random_shuffle=True,
        initial_fill=256,
        name="reader",
    )
    image = fn.decoders.image_random_crop(
        encoded,
        device="cpu",
        output_type=types.RGB,
        adjust_orientation=False,
        random_area=list(recipe.scale),
        random_aspect_ratio=list(recipe.ratio),
        num_attempts=10,
    )
    image = fn.resize(
        image, size=[recipe.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True
    )
    image = _jitter(image, recipe)
    image = _blur(image, recipe)
    return fn.crop_mirror_normalize(
        image,
        mirror=fn.random.coin_flip(probability=recipe.flip_p),
        mean=[255 * m for m in recipe.mean],
        std=[255 * s for s in recipe.std],
        output_layout="HWC",
        dtype=types.FLOAT,
    )


def _jitter(image: Any, recipe: ViewRecipe) -> Any:
    brightness, contrast, saturation, hue = recipe.jitter
    gray = fn.random.coin_flip(probability=recipe.gray_p, dtype=types.BOOL)
    jitter = fn.random.coin_flip(probability=recipe.jitter_p, dtype=types.BOOL)
    if jitter:
        image = fn.color_twist(
            image,
            brightness=fn.random.uniform(range=[1 - brightness, 1 + brightness]),
            contrast=fn.random.uniform(range=[1 - contrast, 1 + contrast]),
            saturation=fn.random.uniform(range=[1 - saturation, 1 + saturation]),
            hue=fn.random.uniform(range=[-360 * hue, 360 * hue]),
        )
    if gray:
        image = fn.color_twist(image, saturation=0.0)
    return image


def _blur(image: Any, recipe: ViewRecipe) -> Any:
    blur = fn.random.coin_flip(probability=recipe.blur_p, dtype=types.BOOL)
    if blur:
        image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=list(recipe.blur_sigma)))
    return image


def dali_reader_batches(folder: Path) -> Iterator[Tensor]:
    """Endless batches of DALI's own reader."""
    pipe = dali_reader_pipeline(
        folder, IMAGENET_SINGLE_VIEW, batch_size=BATCH, num_threads=THREADS, device_id=None, seed=0
    )
    pipe.build()
    while True:
        (views,) = pipe.run()
        yield from_dlpack(views.as_tensor()).clone().permute(0, 3, 1, 2)


def coke_batches(folder: Path, backend: str) -> Iterator[Tensor]:
    """Endless batches of our loader."""
    loader = build_loader(
        ImageIndex(folder), [IMAGENET_SINGLE_VIEW], batch_size=BATCH, backend=backend
    )
    return (batch.views[0] for batch in loader.epochs())


def rate(batches: Iterator[Tensor], images: int) -> float:
    """Images per second over about ``images`` images, after two batches that are not counted.

    The two are what a queue may hold ready; without them the first measured ones would be free.
    """
    next(batches), next(batches)
    started, seen = time.perf_counter(), 0
    while seen < images:
        seen += len(next(batches))
    return seen / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000, help="images per measurement")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds imagenet-sample.tar")
    console = Console(record=True, width=100)
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(Path(data) / "imagenet-sample.tar") as tar:
            tar.extractall(Path(scratch) / "images", filter="data")
        folder = Path(scratch) / "dataset"
        ingest(Path(scratch) / "images", folder, console=Console(quiet=True))
        contenders: dict[str, Callable[[], Iterator[Tensor]]] = {
            "coke (DALI, CPU)": lambda: coke_batches(folder, "dali"),
            "PIL, one process": lambda: coke_batches(folder, "pil"),
            "DALI's webdataset reader": lambda: dali_reader_batches(folder),
        }
        streams = {name: make() for name, make in contenders.items()}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for round_number in range(options.rounds):
            for name, stream in streams.items():
                images = options.images // 3 if name.startswith("PIL") else options.images
                rates[name].append(rate(stream, images))
            console.print(f"round {round_number + 1} of {options.rounds} done", style="dim")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = medians["coke (DALI, CPU)"]
    table = Table(title=f"single view, 224 px, {THREADS} cores, {date.today()}")
    for column in ("loader", "img/s (median)", "range", "coke / this"):
        table.add_column(column, justify="left" if column == "loader" else "right")
    for name, values in rates.items():
        table.add_row(
            name,
            f"{medians[name]:.0f}",
            f"{min(values):.0f}-{max(values):.0f}",
            f"{ours / medians[name]:.2f}",
        )
    console.print(table)
    if options.save:
        path = Path(__file__).parent / "results" / f"loader-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text())


if __name__ == "__main__":
    main()
