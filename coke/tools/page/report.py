"""``coke report``: one page about a run, or about a clustering of features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from coke.pipeline.sources.keys import from_system
from coke.tools.page.advice import advice_section
from coke.tools.page.clustering_pictures import (
    ClusteredFeatures,
    clustering_pictures,
    is_clustering,
    read_summary,
    summary_section,
)
from coke.tools.page.content import Page, Section
from coke.tools.page.curves import curves_section
from coke.tools.page.evaluations import evaluations_section, read_evaluations
from coke.tools.page.pictures import Pictures, PictureSettings
from coke.tools.page.render import check_pages, write_page
from coke.tools.page.run_facts import RunFacts
from coke.tools.page.run_pictures import RunImages, run_pictures
from coke.tools.page.run_records import RunRecords
from coke.tools.page.settings import settings_section
from coke.tools.runs.run_folder import IDS, RunFolder
from coke.tools.runs.runs import summary
from coke.version import __version__


def report_run(
    run: str | Path,
    images: RunImages | None = None,
    settings: PictureSettings | None = None,
    *,
    out: str | Path = "report.html",
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run.

    Args:
        run: a run folder of ``coke train``.
        images: the data set whose images are shown; None for a page without.
        settings: how many of them; the defaults if None.
        out: the new file.
        overwrite: replace ``out`` if it is there.

    Raises:
        ValueError: no such run, data or checkpoint, an ``out`` that is taken or cannot be written,
            or the packages for pages are not installed.
    """
    console = console or Console(soft_wrap=True)
    out, path = Path(out), Path(run)
    check_pages()
    check_out(out, overwrite=overwrite)
    _check_run(path)
    page, pictures = run_page(path), None
    if images is not None:
        pictures = run_pictures(path, images, settings or PictureSettings(), console)
    _write(page, pictures, out, console)
    return out


def report_clustering(
    clustering: str | Path,
    features: ClusteredFeatures,
    settings: PictureSettings | None = None,
    *,
    out: str | Path = "report.html",
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page of a clustering.

    Args:
        clustering: a folder of ``coke cluster``.
        features: what was clustered, and the images of that.
        settings: how much is shown; the defaults if None.
        out: the new file.
        overwrite: replace ``out`` if it is there.

    Raises:
        ValueError: no such clustering, features or data, an ``out`` that is taken or cannot be
            written, or the packages for pages are not installed.
    """
    console = console or Console(soft_wrap=True)
    out, path = Path(out), Path(clustering)
    check_pages()
    check_out(out, overwrite=overwrite)
    if not is_clustering(path):
        raise ValueError(f"{path} is no folder of `coke cluster`: it has no summary.json of it")
    about = read_summary(path)
    pictures = clustering_pictures(path, features, settings or PictureSettings(), console)
    note = (
        f"{about['clusters']:,} clusters of {about['rows']:,} rows of {features.features}. "
        f"Made by coke {__version__}."
    )
    title = f"{from_system(path.resolve().name)}: a clustering of features"
    page = Page(title=title, note=note, sections=[summary_section(about)], contents=True)
    _write(page, pictures, out, console)
    return out


def run_page(path: Path) -> Page:
    """The page of a run without images."""
    run = RunFolder(path)
    config = run.config()
    data = run.data()
    chosen = data.get("ids")
    images = int(data["count"] if chosen is None else chosen["images"])
    records = RunRecords(lines=run.records(), count=images)
    found = read_evaluations(path)
    sections: list[Section] = [
        advice_section(RunFacts(records=records, config=config, evaluations=found)),
        evaluations_section(found),
        curves_section(records),
        settings_section(config),
    ]
    state = summary(path)
    ended = records.epochs[-1] if records.lines else 0
    note = (
        f"{config.model.network}, {config.data.views} view{'s' * (config.data.views > 1)}, heads "
        f"{' + '.join(f'{k:,}' for k in config.clustering.n_clusters)}; {state.state}"
        f"{f' ({state.message})' if state.message else ''}, epoch {ended} of "
        f"{config.optimizer.epochs}; trained on {data['folder']} "
        f"({records.images:,} images{_subset_in_words(chosen)}). Made by coke {__version__}."
    )
    return Page(
        title=f"{from_system(path.resolve().name)}: a training run",
        note=note,
        sections=sections,
        contents=True,
    )


def _subset_in_words(chosen: dict[str, Any] | None) -> str:
    """What a page says of the ids that a run is trained on; nothing where they are all."""
    return "" if chosen is None else f", chosen by id: {IDS}, hash {chosen['sha256'][:12]}"


def check_out(out: Path, *, overwrite: bool) -> None:
    """Asks, before any work, whether the page may be written.

    Raises:
        ValueError: it may not.
    """
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file, such as {out / 'report.html'}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give --overwrite to replace it, or another --out")
    if not out.parent.is_dir():
        raise ValueError(f"folder {out.parent} of --out {out} does not exist; make it first")
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {out} cannot be written; choose another place")


def _check_run(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a run of `coke train`")
    if not RunFolder(path).exists:
        raise ValueError(
            f"{path} is neither a run of `coke train` (it has no config.toml) nor a clustering of "
            "`coke cluster` (it has no summary.json of one)"
        )


def _write(page: Page, pictures: Pictures | None, out: Path, console: Console) -> None:
    """Puts the pictures' sections behind the first ones of a page, and writes it."""
    if pictures is None:
        line = "No images were looked at: `coke report RUN DATA` shows them."
        shown = [Section(title="Clusters", lines=[line])]
    else:
        shown = pictures.sections
    *first, last = page.sections
    whole = Page(
        title=page.title,
        note=page.note,
        sections=[*first, *shown, last],
        contents=page.contents,
        images={} if pictures is None else pictures.images,
    )
    try:
        write_page(whole, out)
    except OSError as error:  # such as a full disk; what check_out can ask, it asks
        raise ValueError(
            f"--out {out} cannot be written ({error.strerror or error}); choose another place"
        ) from error
    size = f"{out}: {out.stat().st_size / 1e6:.1f} MB"
    console.print(
        size if pictures is None else f"{size}; {pictures.summary}", markup=False, highlight=False
    )
