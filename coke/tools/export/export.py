"""``coke export``: a run's backbone in a format of another tool, and a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from coke.files.byte_size import show_bytes
from coke.pipeline.sources.keys import from_system
from coke.tools.export.card import MARKER, model_card
from coke.tools.export.formats import FORMATS, format_named
from coke.tools.export.formats.format import Format
from coke.tools.export.place import card_name, place_for
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import open_classifier, open_network


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        epoch: of the checkpoint.
        dim: dimension of the features.
        sizes: bytes of each file by path, the card last.
    """

    epoch: int
    dim: int
    sizes: dict[Path, int]


def export(
    run: str | Path,
    out: str | Path,
    settings: ExportSettings,
    *,
    overwrite: bool = False,
    console: Console | None = None,
) -> ExportReport:
    """Writes the backbone of a run's checkpoint, and a model card beside it.

    The exported network takes images (B, 3, S, S) float32 and gives the features (B, D) that
    ``coke embed`` writes; with a head, the scores (B, C) of classes.

    Args:
        run: a run folder.
        out: the new file, or the new folder for a format that is one.
        settings: the format, and what it takes.
        overwrite: replace an earlier export, and nothing else, that is in ``out``.

    Raises:
        ValueError: no such run or format, a network that the format cannot hold, a missing
            package, or an ``out`` that is taken or cannot be written.
    """
    console = console or Console()
    form, out = format_named(settings.format), Path(out)
    _check_options(form, settings)
    network = (
        open_network(run, settings.epoch)
        if settings.head is None
        else open_classifier(run, settings.head)
    )
    form.check(network, settings)
    with (
        place_for(out, form, overwrite=overwrite) as put,
        console.status(f"writing {escape(str(out))}"),
    ):
        contents = form.contents(network, settings, out.name)
        text = model_card(network, form, settings, from_system(out.name))
        assert MARKER in text
        contents[card_name(form, out)] = text.encode("utf-8", "surrogateescape")
        put(contents)
    folder = out.parent if form.suffixes else out
    sizes = {folder / name: len(data) for name, data in contents.items()}
    for path, size in sizes.items():
        console.print(f"{escape(str(path))}  {show_bytes(size)}", highlight=False, soft_wrap=True)
    return ExportReport(epoch=network.epoch, dim=network.dim, sizes=sizes)


def _check_options(form: Format, settings: ExportSettings) -> None:
    given = {"--with-preprocessing": settings.with_preprocessing, "--head": settings.head}
    graphs = " and ".join(name for name, other in FORMATS.items() if other.is_graph)
    for option, value in given.items():
        if value and not form.is_graph:
            raise ValueError(f"{option} is for graphs ({graphs}), and --format {form.name} is none")
