"""Images per second of the loader, beside what a user would write instead.

    COKE_TEST_DATA=FOLDER python benchmarks/loader.py [--rounds 5] [--save]

Reads ``imagenet-sample.tar`` (500 ImageNet JPEGs in class folders) from the folder, ingests it in
both formats, and times, in turns within one run, at 224 px with as many threads as cores:

The paper's single-view recipe, on tars:

- coke: our order and index feeding DALI, on the CPU;
- webdataset + PIL: ``webdataset`` in torch's DataLoader with a worker process per core, and the
  same recipe in PIL;
- PIL: the same recipe with the same parameters in PIL, one process;
- DALI's reader: ``fn.readers.webdataset`` on the same shards and indexes, and the same operators
  with DALI's own random numbers, as its documentation has it.

Crop, flip and normalise only, on one and the same `.beton` of the original JPEGs:

- coke, as above;
- FFCV: its Loader with its own random crop, flip and normalisation, as its documentation has them;
- coke --loader ffcv: FFCV's Loader with our order and crops.

Reports the median over the rounds and the ratios of the medians. Batches end in torch tensors.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coke.config.view_recipe import IMAGENET_SINGLE_VIEW, ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.pipeline.views.draw import draw
from coke.pipeline.views.pil_reference import PilViews
from coke.tools.datasets.ingest import ingest

BATCH = 64
THREADS = len(os.sched_getaffinity(0))
CROP_ONLY = ViewRecipe(jitter_p=0.0, gray_p=0.0, blur_p=0.0)
PAUSE = 2.0  # seconds before each measurement, in which the one before fills its queue again
QUEUED = 6  # batches that any of the contenders may hold ready: they are not counted


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


def coke_batches(folder: Path, backend: str, recipe: ViewRecipe) -> Iterator[Tensor]:
    """Endless batches of our loader."""
    loader = build_loader(ImageIndex(folder), [recipe], batch_size=BATCH, backend=backend)
    return (batch.views[0] for batch in loader.epochs())


def pil_batch(samples: list[dict[str, Any]]) -> Tensor:
    """What a DataLoader's worker makes of a batch: the single-view recipe in PIL."""
    encoded = [np.frombuffer(sample["jpg"], dtype=np.uint8) for sample in samples]
    sizes = np.array([Image.open(io.BytesIO(sample["jpg"])).size for sample in samples])
    drawn = draw(
        IMAGENET_SINGLE_VIEW,
        seed=int(torch.randint(2**31, ())),
        epoch=0,
        view=0,
        ids=np.arange(len(samples)),
        heights=sizes[:, 1],
        widths=sizes[:, 0],
    )
    (views,) = next(PilViews([IMAGENET_SINGLE_VIEW]).stream(iter([(encoded, [drawn])])))
    return views


def webdataset_batches(folder: Path) -> Iterator[Tensor]:
    """Endless batches of webdataset in a DataLoader with a process per core."""
    shards = sorted(map(str, folder.glob("*.tar")))
    samples = webdataset.WebDataset(shards, resampled=True, shardshuffle=False).shuffle(256)
    batches = samples.batched(BATCH, collation_fn=pil_batch, partial=False)
    # Not forked: threads of the other contenders may be running.
    loader = webdataset.WebLoader(
        batches, batch_size=None, num_workers=THREADS, multiprocessing_context="forkserver"
    )
    return iter(loader)


def ffcv_batches(folder: Path) -> Iterator[Tensor]:
    """Endless batches of FFCV, with the operations of its documentation."""
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

    recipe = CROP_ONLY
    mean, std = 255 * np.array(recipe.mean), 255 * np.array(recipe.std)
    count = len(ImageIndex(folder))
    torch_threads = torch.get_num_threads()
    loader = Loader(
        str(folder / "images-00000.beton"),
        batch_size=BATCH,
        num_workers=THREADS,
        order=OrderOption.RANDOM,
        os_cache=True,
        # A long epoch: what FFCV does between epochs would weigh too much with 500 images.
        indices=np.tile(np.arange(count), 100),
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((recipe.size,) * 2, recipe.scale, recipe.ratio),
                RandomHorizontalFlip(recipe.flip_p),
                NormalizeImage(mean, std, np.float32),
                ToTensor(),
                ToTorchImage(),
            ],
            "id": None,
            "label": None,
        },
    )
    torch.set_num_threads(torch_threads)
    while True:
        for (views,) in loader:
            yield views


def rate(batches: Iterator[Tensor], images: int) -> float:
    """Images per second over about ``images`` images, behind those that a queue holds ready."""
    time.sleep(PAUSE)
    for _ in range(QUEUED):
        next(batches)
    started, seen = time.perf_counter(), 0
    while seen < images:
        seen += len(next(batches))
    return seen / (time.perf_counter() - started)


def compare(
    title: str,
    contenders: dict[str, Callable[[], Iterator[Tensor]]],
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Times contenders in turns and prints their table; the first one is ours."""
    streams = {name: make() for name, make in contenders.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(options.rounds):
        for name, stream in streams.items():
            slow = "PIL" in name
            rates[name].append(rate(stream, options.images // 3 if slow else options.images))
        console.print(f"round {round_number + 1} of {options.rounds} done", style="dim")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = next(iter(medians.values()))
    table = Table(title=f"{title}, 224 px, {THREADS} cores, {date.today()}")
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
        images, tars, beton = (Path(scratch) / name for name in ("images", "tars", "beton"))
        with tarfile.open(Path(data) / "imagenet-sample.tar") as tar:
            tar.extractall(images, filter="data")
        quiet = Console(quiet=True)
        ingest(images, tars, shard_size=100, console=quiet)  # webdataset wants a shard per worker
        ingest(images, beton, format="ffcv", shard_size=0, console=quiet)
        compare(
            "single view",
            {
                "coke (DALI, CPU)": lambda: coke_batches(tars, "dali", IMAGENET_SINGLE_VIEW),
                f"webdataset + PIL, {THREADS} processes": lambda: webdataset_batches(tars),
                "PIL, one process": lambda: coke_batches(tars, "pil", IMAGENET_SINGLE_VIEW),
                "DALI's webdataset reader": lambda: dali_reader_batches(tars),
            },
            options,
            console,
        )
        if importlib.util.find_spec("ffcv") is None:
            console.print("ffcv is not installed (make ffcv): not compared with it")
        else:
            compare(
                "crop only, one .beton",
                {
                    "coke (DALI, CPU)": lambda: coke_batches(beton, "dali", CROP_ONLY),
                    "FFCV": lambda: ffcv_batches(beton),
                    "coke --loader ffcv": lambda: coke_batches(beton, "ffcv", CROP_ONLY),
                },
                options,
                console,
            )
    if options.save:
        path = Path(__file__).parent / "results" / f"loader-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
