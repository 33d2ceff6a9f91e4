"""The paper's Table 6, and what a rate measured here means in its terms."""

from __future__ import annotations

from dataclasses import dataclass

from coke.config.config import Config
from coke.config.model import RESNET

IMAGENET_IMAGES = 1_281_167
#: Minutes per ImageNet epoch on 8 GPUs with 16 GB each (paper, Table 6).
PAPER_MINUTES = {"MoCo-v2": 18.3, "SwAV": 20.8, "CoKe": 11.1, "CoKe+ (mixed precision)": 8.4}


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Minutes per ImageNet epoch on ``gpus`` devices like this one.

    Attributes:
        assumptions: what the minutes take for granted.
        beside_the_paper: what the paper's figures are of, what these are, and whether the two can
            be compared.
    """

    minutes: float
    gpus: int
    assumptions: tuple[str, ...]
    beside_the_paper: str


def imagenet_minutes(images_per_second: float, gpus: int = 1) -> float:
    return IMAGENET_IMAGES / (images_per_second * gpus) / 60


def project(
    images_per_second: float,
    *,
    gpus: int,
    config: Config,
    precision: str,
    device: str,
    cores: int,
    image_kilobytes: float,
) -> Projection:
    """What the measured rate would make of an ImageNet epoch, and what that takes for granted.

    Args:
        images_per_second: of training, clustering and loading included, on one device.
        gpus: how many such devices.
        config, precision: what was trained, with ``config.data.batch_size`` images per device.
        device, cores: what the rate was measured on.
        image_kilobytes: mean size of the stored images.
    """
    assumptions = [
        f"images like this data set's: {image_kilobytes:,.0f} kB each, from where it lies in the "
        "first pass and from the page cache in all others",
        f"clustering and labels of {IMAGENET_IMAGES:,} ids, as timed here",
        "the initialisation scan, the second stage's soft labels and what happens between epochs "
        "(new centers, checkpoints, evaluation) are not in it",
    ]
    if gpus > 1:
        assumptions += [
            f"{gpus} devices like this one ({device}), with {cores} CPU cores for each",
            f"{config.data.batch_size:,} images per step on each: a batch of "
            f"{gpus * config.data.batch_size:,}",
            "gradients are summed while backward runs, so that more devices cost no time",
        ]
    return Projection(
        minutes=imagenet_minutes(images_per_second, gpus),
        gpus=gpus,
        assumptions=tuple(assumptions),
        beside_the_paper=_beside_the_paper(config, precision),
    )


def _beside_the_paper(config: Config, precision: str) -> str:
    network, size = config.model, config.data.view.size
    views = f"{config.data.views} view{'s' if config.data.views > 1 else ''} of {size} px"
    if config.data.small_views:
        views += f" and {config.data.small_views} of {config.data.small_view.size} px"
    text = (
        f"paper: ResNet-50, 224 px, 8 × 16 GB GPUs; here: {network.network}, {views}, {precision}"
    )
    same = (network.backbone, network.depth, network.width, size) == (RESNET, 50, 64, 224)
    same = same and config.data.views == 1 and config.data.small_views == 0
    return text if same else f"{text}: not the same work, so the figures cannot be compared"
