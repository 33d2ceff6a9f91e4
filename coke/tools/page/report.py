"""``coke report``: one page about a run, or about a clustering of features."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console

from coke.tools.features.cluster import FORMAT as CLUSTERING
from coke.tools.page.advice import advice_section
from coke.tools.page.content import Page, Section
from coke.tools.page.curves import curves_section
from coke.tools.page.evaluations import evaluations_section, read_evaluations
from coke.tools.page.render import check_pages, write_page
from coke.tools.page.run_facts import RunFacts
from coke.tools.page.run_records import RunRecords
from coke.tools.page.settings import settings_section
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.runs import summary
from coke.version import __version__


def report_run(
    run: str | Path,
    *,
    out: str | Path = "report.html",
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run.

    Args:
        run: a run folder of ``coke train``.
        out: the new file.
        overwrite: replace ``out`` if it is there.

    Raises:
        ValueError: no such run, an ``out`` that is taken or cannot be written, or the packages for
            pages are not installed.
    """
    console = console or Console(soft_wrap=True)
    out = Path(out)
    check_pages()
    check_out(out, overwrite=overwrite)
    page = run_page(Path(run))
    write_page(page, out)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", markup=False, highlight=False)
    return out


def run_page(path: Path) -> Page:
    """What the page of a run holds."""
    run = RunFolder(path)
    config = run.config()
    data = json.loads((path / "data.json").read_text(encoding="utf-8"))
    records = RunRecords(lines=run.records(), count=int(data["count"]))
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
        f"({records.images:,} images). Made by coke {__version__}."
    )
    return Page(
        title=f"{path.resolve().name}: a training run", note=note, sections=sections, contents=True
    )


def is_clustering(path: Path) -> bool:
    """Whether a folder is what ``coke cluster`` writes."""
    about = path / "summary.json"
    try:
        return bool(json.loads(about.read_text(encoding="utf-8"))["format"] == CLUSTERING)
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
