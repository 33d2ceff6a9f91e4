"""The frame of every evaluation: what it measures, and how its result is shown and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Unpack

from rich.console import Console

from coke.tools.evaluation.figures import Row
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import CachedFeatures, cache_features
from coke.tools.evaluation.results import check_results, kept_rows, show_and_keep, show_kept
from coke.tools.evaluation.subject import Subject, SubjectOptions


class Evaluation(Protocol):
    """One way to measure representations, with its settings.

    To add one, write a frozen dataclass of its settings with these members, and a function such as
    :func:`coke.tools.evaluation.knn.eval_knn` that calls :func:`evaluate_run` with it.
    """

    @property
    def method(self) -> str:
        """The name in the table's title and in ``eval.json``."""

    def settings(self, subject: Subject) -> dict[str, Any]:
        """All that decides the result besides weights, data, view and rows; known before work."""

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        """Does the work. Names of rows are those of :meth:`Subject.contestants`, and raw pixels.

        Args:
            features: features of ``features.subject``, computed when asked for. A method that
                needs networks takes those of ``features.subject.contestants()``.
        """


def evaluate_run(
    evaluation: Evaluation,
    run: str | Path,
    data: str | Path,
    *,
    batch_size: int = 256,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> EvalReport:
    """Evaluates a run, shows the table and adds it to the run's ``eval.json``.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        batch_size: images per forward pass.
        features: of this run and data, where other evaluations use them too.
        options: see :class:`SubjectOptions`; without effect where features are given.

    Raises:
        ValueError: as :func:`coke.tools.evaluation.subject.open_subject`; features that are not
            finite; or results that cannot be kept.
    """
    console = console or Console()
    check_results(run)
    if features is None:
        features = cache_features(run, data, batch_size=batch_size, console=console, **options)
    return evaluate(evaluation, run, features, console)


def evaluate(
    evaluation: Evaluation,
    run: str | Path,
    features: CachedFeatures,
    console: Console,
    *,
    again: bool = True,
    with_data: bool = True,
) -> EvalReport:
    """Evaluates a subject, shows the table and keeps it.

    Args:
        again: measure anew where ``eval.json`` holds an equal result already; otherwise that is
            shown.
        with_data: also print which images were used.
    """
    subject = features.subject
    blank = EvalReport.of(evaluation.method, run, subject, evaluation.settings(subject), {})
    rows = None if again else kept_rows(blank, run)
    if rows is None:
        report = replace(blank, rows=evaluation.rows(features, console))
        show_and_keep(report, run, console, with_data=with_data)
    else:
        report = replace(blank, rows=rows)
        show_kept(report, run, console, with_data=with_data)
    return report
