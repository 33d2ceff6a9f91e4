"""``coke eval all``: every evaluation of a run on one data set, from features computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.tools.console.tables import print_table
from coke.tools.evaluation.clusters import Clusters
from coke.tools.evaluation.contestants import TRAINED
from coke.tools.evaluation.evaluation import Evaluation, evaluate
from coke.tools.evaluation.few_images import FRACTIONS, few_images
from coke.tools.evaluation.figures import METRICS
from coke.tools.evaluation.finetune import FineTune
from coke.tools.evaluation.knn import Knn
from coke.tools.evaluation.linear import FAST, Linear
from coke.tools.evaluation.lowshot import LowShot
from coke.tools.evaluation.report import EvalReport, cell, show_data
from coke.tools.evaluation.representations import CachedFeatures, cache_features
from coke.tools.evaluation.results import check_results, newest_like, show_kept
from coke.tools.evaluation.subject import Subject, SubjectOptions


@dataclass(frozen=True, kw_only=True)
class _Step:
    """An evaluation of the list.

    Attributes:
        name: for the message if it cannot be made.
        make: gives it; raises ValueError where the data or this machine do not allow it.
    """

    name: str
    make: Callable[[], Evaluation]


def eval_all(
    run: str | Path,
    data: str | Path,
    *,
    finetune: bool = False,
    again: bool = False,
    batch_size: int = 256,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> list[EvalReport]:
    """Measures a run in every way, and prints one table.

    Each result is kept in ``eval.json`` as soon as it is there, and is the one that its own command
    gives without options. A result that is there already is not measured again. An evaluation that
    the data do not allow is left out with a warning.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        finetune: also fine-tune the network with every setting of the paper's grid. Otherwise the
            newest result of a fine-tuning of these weights on these data is shown.
        again: measure what is in ``eval.json`` again.
        batch_size: images per forward pass.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Raises:
        ValueError: as :func:`coke.tools.evaluation.evaluation.evaluate_run`, or no evaluation could
            be made.
    """
    console = console or Console()
    check_results(run)
    features = cache_features(run, data, batch_size=batch_size, console=console, **options)
    steps = _steps(features.subject, batch_size, finetune)
    show_data(EvalReport.of("all", run, features.subject, {}, {}), console, with_warnings=True)
    left_out: dict[str, ValueError] = {}
    reports = []
    for number, step in enumerate(steps, start=1):
        console.print(f"{number} of {len(steps)}: {step.name}", highlight=False)
        try:
            reports.append(_measured(step, run, features, console, again=again))
        except ValueError as error:
            left_out[step.name] = error
    if not reports:
        raise next(iter(left_out.values()))
    if not finetune:
        reports += _tuned_before(features.subject, console)
    print_table(console, _table(reports))
    for name, why in left_out.items():
        console.print(
            f"[bold yellow]warning:[/] {name} is left out: {escape(str(why))}", highlight=False
        )
    return reports


def _steps(subject: Subject, batch_size: int, finetune: bool) -> list[_Step]:
    found = [
        _Step(name="k-NN", make=Knn),
        _Step(name="linear", make=lambda: Linear(fast=True, training=FAST)),
        *(
            _Step(name=f"low-shot {100 * fraction:g} %", make=_low_shot(subject, fraction))
            for fraction in FRACTIONS
        ),
        _Step(name="clusters", make=lambda: Clusters(batch_size=batch_size)),
    ]
    if finetune:
        found.append(_Step(name="fine-tuning", make=lambda: FineTune(run=subject.run)))
    return found


def _low_shot(subject: Subject, fraction: float) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        (images,) = few_images(subject.splits.train, [fraction], (), None)
        return LowShot(images=images)

    return make


def _tuned_before(subject: Subject, console: Console) -> list[EvalReport]:
    """The newest fine-tuning of these weights on these data, whatever its settings; or none."""
    default = FineTune(run=subject.run)
    found = newest_like(EvalReport.of(default.method, subject.run, subject, {}, {}), subject.run)
    if found is None:
        console.print(
            f"fine-tuning is left out: it trains each network {len(default.grid) + 1} times; "
            "--finetune adds it",
            highlight=False,
        )
        return []
    show_kept(found, subject.run, console, with_data=False)
    return [found]


def _measured(
    step: _Step, run: str | Path, features: CachedFeatures, console: Console, *, again: bool
) -> EvalReport:
    evaluation = step.make()
    return evaluate(evaluation, run, features, console, again=again, with_data=False)


def _table(reports: list[EvalReport]) -> Table:
    """The main figure of each evaluation, in percent."""
    epoch = reports[0].epoch
    table = Table(title="all evaluations: top-1 in percent; of clusters their accuracy")
    table.add_column("features")
    for report in reports:
        table.add_column(report.method, justify="right")
    # Own labels have a row in the table of clusters alone: no other evaluation has it.
    names = dict.fromkeys(name for r in reports if r.tests for name in r.rows)
    order = [name for name in names if name != TRAINED] + [TRAINED]
    for name in order:
        cells = []
        for report in reports:
            row, metric = report.rows.get(name), report.main_metric
            figure = None if row is None else row.figures.get(metric)
            cells.append(cell(figure, METRICS[metric][1]))
        table.add_row(f"CoKe, epoch {epoch}" if name == TRAINED else escape(name), *cells)
    return table
