"""``eval.json`` of a run: the record of every evaluation that was made of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from coke.files import durable, lock
from coke.tools.evaluation.figures import Row
from coke.tools.evaluation.report import EvalReport, show

RESULTS = "eval.json"


def check_results(run: str | Path) -> None:
    """Asks, before any work, whether a result could be kept.

    Raises:
        ValueError: the run's ``eval.json`` cannot be read, or its folder cannot be written.
    """
    if not Path(run).is_dir():
        return  # opening the run says more
    _read(Path(run) / RESULTS)
    if not os.access(run, os.W_OK):
        raise ValueError(
            f"{Path(run) / RESULTS} cannot be written: you may not write to {run}; evaluate a copy "
            "of the run"
        )


def show_and_keep(
    report: EvalReport, run: str | Path, console: Console, *, with_data: bool = True
) -> None:
    """Prints a report and adds it to the run's results."""
    show(report, console, with_data=with_data)
    console.print(f"written to {keep_result(report, run)}", highlight=False)


def show_kept(
    report: EvalReport, run: str | Path, console: Console, *, with_data: bool = True
) -> None:
    """Prints a report that the run's results held already."""
    show(report, console, with_data=with_data)
    console.print(f"taken from {Path(run) / RESULTS}: measured before", highlight=False)


def kept_rows(report: EvalReport, run: str | Path) -> dict[str, Row] | None:
    """The rows of the result whose identity is that of ``report``; None if there is none.

    Raises:
        ValueError: the run's ``eval.json`` cannot be read.
    """
    record = _read(Path(run) / RESULTS).get(result_name(report))
    if record is None:
        return None
    return {name: Row.from_record(row) for name, row in record["rows"].items()}


def newest_like(report: EvalReport, run: str | Path) -> EvalReport | None:
    """The newest result of the method, weights, images, labels and size of ``report``, whatever its
    other settings; None if there is none.

    Raises:
        ValueError: the run's ``eval.json`` cannot be read.
    """
    ours = report.record()
    for record in reversed(_read(Path(run) / RESULTS).values()):
        if _alike(record, ours):
            rows = {name: Row.from_record(row) for name, row in record["rows"].items()}
            return replace(report, settings=record["settings"], rows=rows)
    return None


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    def about(record: dict[str, Any]) -> list[Any]:
        data = [record["data"][role] for role in ("train", "test")]
        return [
            *(record[name] for name in ("method", "epoch", "weights_sha256")),
            *(part[name] for part in data for name in ("identity", "labels_sha256", "images")),
            record["settings"].get("size"),
            record["settings"].get("ids_sha256"),
        ]

    # Records of the first versions named their data by its path alone.
    return a.get("method") == b["method"] and "weights_sha256" in a and about(a) == about(b)


def keep_result(report: EvalReport, run: str | Path) -> Path:
    """Adds a report to the run's ``eval.json``, a JSON object of records, the newest last.

    A record replaces another only where all that identifies a result is equal: method, epoch,
    weights, both data sets with their places and labels, and settings. Processes that evaluate
    one run at a time wait for each other here.

    Returns: the file.

    Raises:
        ValueError: the file cannot be read.
        OSError: the file cannot be written.
    """
    path = Path(run) / RESULTS
    with _locked(path.parent):
        records = _read(path)
        name = result_name(report)
        records.pop(name, None)
        records[name] = {
            **report.record(),
            "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        durable.write_json(path, records, indent=1)
    return path


def results_of(run: str | Path) -> dict[str, dict[str, Any]]:
    """The records of a run's ``eval.json`` by name, the oldest first; none if there is no file.

    Raises:
        ValueError: the file cannot be read.
    """
    return _read(Path(run) / RESULTS)


def result_name(report: EvalReport) -> str:
    """Method, epoch, test data, and a hash over all that identifies the result."""
    digest = hashlib.sha256(json.dumps(report.identity(), sort_keys=True).encode()).hexdigest()
    return f"{report.method}, epoch {report.epoch}, {report.data.test.location}, {digest[:12]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away, then evaluate") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object of results; move it away, then evaluate")
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        # NFS, for one, locks no folder. Then two evaluations at one instant may lose a record.
        with suppress(OSError):
            lock.take(handle, wait=True)
        yield
    finally:
        os.close(handle)
