"""What ``coke bench-epoch`` shows in a terminal and saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from coke.files.byte_size import show_bytes
from coke.files.durable import write_json
from coke.tools.bench.figures import median, spread_range, with_share
from coke.tools.bench.memory import Memory
from coke.tools.bench.methods import ratios
from coke.tools.bench.paper import IMAGENET_IMAGES, PAPER_MINUTES, imagenet_minutes
from coke.tools.bench.result import EpochBench
from coke.tools.bench.timing import Spread
from coke.tools.console.tables import print_table

_BAR_WIDTH = 10  # with it the table is as wide as a terminal
_IMPOSSIBLE = 1.02  # share of the slower part's rate; up to it, rounds differ by chance


def show(bench: EpochBench, console: Console) -> None:
    """Prints tables and conclusions."""
    for part in _parts(bench):
        if isinstance(part, Table):
            print_table(console, part, highlight=False)
        else:
            console.print(part, highlight=False)


def save_json(bench: EpochBench, path: Path) -> None:
    """Writes everything that was measured; milliseconds per batch, images per second, bytes."""
    content = asdict(bench)
    content["ratios"] = [asdict(ratio) for ratio in ratios(bench.methods)]
    write_json(path, content, indent=1)


def settings_line(bench: EpochBench) -> str:
    """What was measured where, in a line."""
    return ", ".join(f"{name}: {value}" for name, value in bench.settings.items())


def conclusions(bench: EpochBench) -> list[str]:
    """What the figures say, in sentences."""
    projection = bench.projection
    where = "this device" if projection.gpus == 1 else f"{projection.gpus} devices like this one"
    return [
        *_limit(bench),
        f"The step on synthetic data is the ceiling; training reaches {bench.share_of_ceiling:.0%} "
        "of it.",
        *(f"Try {advice.setting}: {advice.why}." for advice in bench.advice),
        f"An ImageNet epoch ({IMAGENET_IMAGES:,} images) on {where}: "
        f"{projection.minutes:,.1f} minutes, given: {'; '.join(projection.assumptions)}.",
        *_memory_lines(bench.memory, int(bench.settings["batch size"])),
        *(f"Best split of the cores: {split.command}" for split in bench.threads[:1]),
    ]


def _limit(bench: EpochBench) -> list[str]:
    part, stage = bench.limited_by, bench.limiting_stage
    share = f"{bench.share_of_limit:.0%} of the {part}'s rate alone"
    if bench.shared_cores:
        lines = [
            "Limited by the cores, which loader and step share: training goes as fast as if they "
            f"took turns. The slower one is the {part}, and its longest stage: {stage}. Training "
            f"reaches {share}."
        ]
    else:
        lines = [f"Limited by the {part}, and there most by: {stage}. Training reaches {share}."]
    if bench.share_of_limit > _IMPOSSIBLE:
        lines.append(
            "Training cannot be faster than its parts: the machine's speed changed between the "
            "measurements (other programs, its clock), so these figures are not to be trusted."
        )
    return lines


def _parts(bench: EpochBench) -> Iterator[RenderableType]:
    yield Text(settings_line(bench))
    yield _stages(bench)
    yield _rates(bench)
    if bench.methods:
        yield _methods(bench)
        yield _ratios(bench)
    if bench.threads:
        yield _threads(bench)
    for line in conclusions(bench):
        yield Text(line)


def _stages(bench: EpochBench) -> Table:
    s = bench.settings
    table = Table(
        title=f"milliseconds per batch of {s['batch size']}: {s['views']} view(s) of {s['size']} "
        f"px, {s['backbone']}, {s['precision']} on {s['device']}, {s['cores']} cores"
    )
    table.add_column("stage", no_wrap=True)
    for name in ("alone", "range", "training", "range"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("alone", width=_BAR_WIDTH)
    table.caption = (
        "loader, whole: its stages together, which overlap; they work ahead of training. "
        "step, whole: by the clock; its stages are medians, which leave out rare long steps."
    )
    longest = max(stage.alone.median for stage in bench.stages if stage.alone)
    part = ""
    for stage in bench.stages:
        if part and stage.part != part:
            table.add_section()
        part = stage.part
        length = stage.alone.median if stage.alone else 0.0
        table.add_row(
            stage.label,
            *_cells(stage.alone, 1),
            *_cells(stage.together, 1),
            Bar(longest, 0, length, width=_BAR_WIDTH, color="yellow" if stage.whole else "cyan"),
        )
    return table


def _rates(bench: EpochBench) -> Table:
    table = Table(title="images per second, and what they make of an ImageNet epoch")
    table.add_column("")
    for name in ("img/s", "range", "minutes per epoch"):
        table.add_column(name, justify="right")
    for name, rate in (
        ("loader alone", bench.loader),
        ("step on synthetic data", bench.step),
        ("training: both", bench.both),
    ):
        table.add_row(name, *_cells(rate, 0), f"{imagenet_minutes(rate.median):,.1f}")
    projection = bench.projection
    if projection.gpus > 1:
        rate_of_all = bench.both.median * projection.gpus
        name = f"projected: {projection.gpus} such devices"
        table.add_row(name, f"{rate_of_all:,.0f}", "", f"{projection.minutes:,.1f}")
    table.caption = projection.beside_the_paper
    table.add_section()
    for name, minutes in PAPER_MINUTES.items():
        per_second = IMAGENET_IMAGES / minutes / 60
        table.add_row(f"paper, 8 GPUs: {name}", f"{per_second:,.0f}", "", f"{minutes:.1f}")
    return table


def _methods(bench: EpochBench) -> Table:
    table = Table(title="milliseconds per batch: the step of each method alone, and in training")
    table.add_column("method", no_wrap=True)
    for name in ("views", "precision", "alone", "training"):
        table.add_column(name, justify="right", no_wrap=True)
    for m in bench.methods:
        times = with_share(m.alone, 1), with_share(m.training, 1)
        table.add_row(m.name, str(m.views), m.precision, *times)
    missing = [f"{m.name}: not measured, {m.missing}" for m in bench.methods if m.missing]
    table.caption = "; ".join(missing) or None
    return table


def _ratios(bench: EpochBench) -> Table:
    table = Table(title="ratios of time per batch")
    table.add_column("")
    for name in ("alone", "training", "paper, Table 6"):
        table.add_column(name, justify="right")
    for r in ratios(bench.methods):
        paper = "" if r.paper is None else f"{r.paper:.2f}"
        table.add_row(f"{r.method} / {r.other}", f"{r.alone:.2f}", f"{r.training:.2f}", paper)
    return table


def _threads(bench: EpochBench) -> Table:
    table = Table(title="training with the cores split between loader and step")
    for name in ("loader threads", "step threads", "img/s", "range"):
        table.add_column(name, justify="right")
    for split in bench.threads:
        table.add_row(str(split.loader), str(split.step), *_cells(split.rate, 0))
    return table


def _memory_lines(memory: Memory, batch_size: int) -> list[str]:
    peak, budget = show_bytes(memory.peak), show_bytes(memory.budget)
    if memory.of == "process":
        return [
            f"Peak of this process: {peak}. What a GPU would need was not measured: torch runs on "
            "the CPU here, and --memory-budget has no effect."
        ]
    fits = "fits" if memory.peak <= memory.budget else "does not fit"
    return [
        f"Peak of the GPU at batch {batch_size}: {peak}, which {fits} {budget}.",
        f"Largest batch that fits {budget}: {memory.largest_batch}.",
    ]


def _cells(spread: Spread | None, digits: int) -> tuple[str, str]:
    return median(spread, digits), spread_range(spread, digits)
