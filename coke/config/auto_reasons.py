"""The preset ``auto``: what it has chosen and why, in words."""

from __future__ import annotations

from coke.config.auto_base import Base
from coke.config.config import Config
from coke.config.facts import DataFacts, DeviceFacts
from coke.config.wishes import Wishes

SMALLEST_BATCH = 16  # batch norm's statistics are poor below


def reasons_of(
    config: Config,
    base: Base,
    data: DataFacts,
    device: DeviceFacts,
    wishes: Wishes,
    *,
    rate: str,
) -> dict[str, str]:
    """A line for each choice, by its name. What was given is said to be so.

    Args:
        rate: the rule of the learning rate, in words.
    """

    def line(text: str, why: str, *keys: str) -> str:
        return f"{text}: {'as given' if any(wishes.given(k) is not None for k in keys) else why}"

    view, optimizer = config.data.view, config.optimizer
    crop = f"{view.size} pixels"
    if config.data.start_size:
        crop = f"from {config.data.start_size} to {crop}"
    clusters = " + ".join(f"{k:,}" for k in config.clustering.n_clusters)
    visits = f"{optimizer.epochs * data.images:,} images in all"
    found = {
        "found": f"{data.images:,} images of {data.side} pixels, "
        f"{'gray' if data.gray else 'in colour'}; {device}",
        "network": line(config.model.network, base.network, "model"),
        "views": line(
            f"{config.data.views}",
            "two learn more than one; --views 1 takes half the time",
            "data.views",
        ),
        "crops": line(
            crop,
            f"of images of {data.side}"
            + (", growing over the epochs to save time" if config.data.start_size else "")
            + ("; no change of hue or saturation" if data.gray else ""),
            "data.view.size",
        ),
        "heads": line(
            f"{clusters} clusters, each of {config.clustering.min_ratio:.0%} of N / K at least",
            "as the paper has it" if base.paper else _why_heads(data.images),
            "clustering.n_clusters",
        ),
        "batch": line(
            f"{config.data.batch_size:,}",
            _why_batch(config.data.batch_size, base),
            "data.batch_size",
        ),
        "learning rate": line(
            f"{optimizer.lr:g} ({optimizer.name})",
            rate,
            "optimizer.lr",
        ),
        "epochs": line(
            f"{optimizer.epochs:,}",
            f"{visits}, {wishes.hours:g} hours at the speed of the first steps"
            if wishes.hours is not None
            else f"{visits}; --hours H sets them by time",
            "optimizer.epochs",
        ),
        "precision": line(device.precision, "the device's own", "machine.precision"),
    }
    if config.loss.instance and config.data.views > 1:
        found["loss"] = line(
            f"{config.loss.instance:.0%} of it tells the images of a batch apart",
            "with clusters alone a small network learns less in few epochs",
            "loss.instance",
        )
    if optimizer.accumulate > 1:
        found["pieces"] = line(
            f"{optimizer.accumulate} of a step, one after the other",
            "the whole does not fit the memory",
            "optimizer.accumulate",
        )
    return found


def _why_heads(images: int) -> str:
    return "coarse ones and fine ones, up to N / 16" if images >= 320 else "few, as the images are"


def _why_batch(batch: int, base: Base) -> str:
    if base.paper:
        return "as the paper has it"
    if batch >= base.config.data.batch_size:
        return "the usual one for such a network"
    return "about an eighth of the images" if batch > SMALLEST_BATCH else "small, as the data are"
