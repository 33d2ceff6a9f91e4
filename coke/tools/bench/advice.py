"""What to change when a stage limits: the settings most likely to help, the likeliest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coke.config.config import Config
from coke.config.data import growth_step
from coke.config.model import RESNET
from coke.model.precision import has_native_bf16, resolve_device


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A setting as it is typed, and why it helps."""

    setting: str
    why: str


def advise(
    stages: Sequence[str],
    config: Config,
    *,
    precision: str,
    cores: int,
    shorter_side: float,
    tuned: bool = False,
) -> tuple[Advice, ...]:
    """The two settings most likely to shorten a limiting stage, or one for each of two stages.

    Args:
        stages: names of one or two, see :class:`coke.tools.bench.result.Stage`.
        precision: the resolved one.
        cores: CPU cores of this process.
        shorter_side: median shorter side of the stored images, in pixels.
        tuned: the split of the cores was measured already.
    """
    known = {"--tune-threads"} if tuned else set()
    chosen: list[Advice] = []
    for stage in stages:
        if stage in ("decode", "augment", "bytes by id", "loader"):
            found = _for_loading(stage, config, cores, shorter_side)
        else:
            found = _for_the_step(stage, config, precision)
        new = [advice for advice in found if advice.setting not in known]
        chosen += new[: 2 // len(stages)]
        known |= {advice.setting for advice in chosen}
    return tuple(chosen)


def _for_loading(stage: str, config: Config, cores: int, shorter_side: float) -> list[Advice]:
    found = []
    device, size = resolve_device(config.machine.device), config.data.view.size
    if stage == "bytes by id":
        found.append(
            Advice(
                setting="--set data.order=blocks", why="reads containers in order, not at random"
            )
        )
        found.append(Advice(setting="--cache-dir LOCAL_DISK", why="keeps remote data near"))
    if config.data.loader == "pil":
        found.append(Advice(setting="--loader dali", why="decodes in all cores"))
    target = round(size * 256 / 224)
    if stage != "augment" and shorter_side > 1.25 * target:
        found.append(
            Advice(
                setting=f"coke ingest --resize-shorter {target}",
                why=f"images are stored with a shorter side of {shorter_side:.0f}: a decoder reads "
                f"{(shorter_side / target) ** 2:.1f} times the pixels",
            )
        )
    if 0 < config.machine.threads < cores:
        found.append(
            Advice(
                setting=f"--set machine.threads={cores}",
                why=f"DALI has {config.machine.threads} of the cores",
            )
        )
    if config.data.view.exact_hue:
        found.append(
            Advice(
                setting="--set data.view.exact_hue=false",
                why="hue in YIQ takes a third less of a CPU per view (other colours, see "
                "docs/augmentation.md)",
            )
        )
    if device.type == "cpu":
        found.append(
            Advice(setting="--tune-threads", why="measures how to split the cores with the step")
        )
    if config.data.start_size == 0:
        found.append(_smaller_views(config))
    if config.data.view.blur_p > 0:
        found.append(
            Advice(
                setting="--set data.view.blur_p=0",
                why=f"{config.data.view.blur_p:.0%} of the views are blurred (without, it is "
                "another recipe)",
            )
        )
    found.append(
        Advice(setting="more CPU cores per device", why="decoding scales with them")
        if device.type == "cpu" or stage != "decode"
        else Advice(setting="--batch-size larger", why="the GPU decodes larger batches better")
    )
    return found


def _for_the_step(stage: str, config: Config, precision: str) -> list[Advice]:
    device = resolve_device(config.machine.device)
    found = []
    clustering = config.clustering
    if stage == "clustering":
        if clustering.dual_rule == "auto":
            found.append(
                Advice(
                    setting="--set clustering.dual_rule=paper",
                    why="one dual step per batch; holds the sizes on large data only",
                )
            )
        if len(clustering.n_clusters) > 1:
            found.append(
                Advice(
                    setting=f"--set clustering.n_clusters=[{clustering.n_clusters[0]}]",
                    why=f"one head instead of {len(clustering.n_clusters)}",
                )
            )
    if stage == "copy":
        found.append(Advice(setting="--loader dali", why="decodes on the GPU: nothing to copy"))
    if stage == "optimiser":
        found.append(
            Advice(
                setting=f"--batch-size {2 * config.data.batch_size}",
                why="half as many updates per epoch (scale the learning rate along)",
            )
        )
    if precision == "fp32" and has_native_bf16(device):
        found.append(
            Advice(
                setting="--set machine.precision=bf16", why="this device computes it in hardware"
            )
        )
    if config.data.start_size == 0:
        found.append(_smaller_views(config))
    if device.type == "cuda":
        found.append(
            Advice(
                setting=f"--batch-size {2 * config.data.batch_size}",
                why="fills the GPU better, if it fits",
            )
        )
    else:
        found.append(
            Advice(
                setting="--tune-threads",
                why="measures how to split the cores between step and loader",
            )
        )
    if config.model.backbone == RESNET and config.model.depth > 18:
        found.append(Advice(setting="--set model.depth=18", why="a smaller backbone"))
    found.append(
        Advice(setting="--device cuda", why="convolutions are what a GPU is for")
        if device.type == "cpu"
        else Advice(setting="more GPUs", why="the step is what limits")
    )
    return found


def _smaller_views(config: Config) -> Advice:
    step = growth_step(config.model.side_multiple)
    steps = max(math.ceil(8 / step), round(config.data.view.size * 0.6 / step))
    start = step * steps
    return Advice(
        setting=f"--set data.start_size={start}",
        why=f"views grow from {start} to {config.data.view.size} pixels over the epochs: the "
        f"average view has {_mean_area(start, config.data.view.size):.0%} of the pixels",
    )


def _mean_area(start: int, size: int) -> float:
    """Mean area of views that grow evenly over three quarters of the epochs, relative to full."""
    growing = (start**2 + start * size + size**2) / 3  # the mean of a square over its side
    return (0.75 * growing + 0.25 * size**2) / size**2
