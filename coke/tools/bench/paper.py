"""The paper's Table 6, and what a rate measured here means in its terms."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_IMAGES = 1_281_167
#: Minutes per ImageNet epoch on 8 GPUs with 16 GB each (paper, Table 6).
PAPER_MINUTES = {"MoCo-v2": 18.3, "SwAV": 20.8, "CoKe": 11.1, "CoKe+ (mixed precision)": 8.4}


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Minutes per ImageNet epoch on ``gpus`` devices like this one, under ``assumptions``."""

    minutes: float
    gpus: int
    assumptions: tuple[str, ...]


def imagenet_minutes(images_per_second: float, gpus: int = 1) -> float:
    return IMAGENET_IMAGES / (images_per_second * gpus) / 60


def project(
    images_per_second: float,
    *,
    gpus: int,
    device: str,
    cores: int,
    batch_size: int,
    image_kilobytes: float,
) -> Projection:
    """What the measured rate would make of an ImageNet epoch, and what that takes for granted.

    Args:
        images_per_second: of training, clustering and loading included, on one device.
        gpus: how many such devices.
        device, cores: what the rate was measured on.
        batch_size: images per step and device.
        image_kilobytes: mean size of the stored images.
    """
    assumptions = [
        f"images like this data set's: {image_kilobytes:,.0f} kB each, from where it lies",
        f"clustering and labels of {IMAGENET_IMAGES:,} ids, as timed here",
        "the initialisation scan, checkpoints and evaluation are not in it",
    ]
    if gpus > 1:
        assumptions += [
            f"{gpus} devices like this one ({device}), with {cores} CPU cores for each",
            f"{batch_size:,} images per step on each: a batch of {gpus * batch_size:,}",
            "gradients are summed while backward runs, so that more devices cost no time",
        ]
    return Projection(
        minutes=imagenet_minutes(images_per_second, gpus),
        gpus=gpus,
        assumptions=tuple(assumptions),
    )
