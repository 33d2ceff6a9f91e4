"""The section of curves: what a run's records say, epoch by epoch."""

from __future__ import annotations

from coke.tools.page import charts
from coke.tools.page.charts import Curve
from coke.tools.page.content import Chart, Section
from coke.tools.page.run_records import PROBES, RANKS, RunRecords, known

_NOTE = (
    "Epoch 0 is the initialisation scan: it gives every image its first label and moves no weight, "
    "so it has no loss. Curves of heads have the head's number of clusters K as their name."
)
_GIB = 1024**3
_SHOWN = 5  # numbers that are not finite, in words


def curves_section(records: RunRecords) -> Section:
    """A chart for each kind of number, a curve for each head."""
    if not records.lines:
        return Section(title="Curves", lines=["No epoch has ended yet, so there are no curves."])
    shown = [*_of_training(records.trained), *_of_heads(records), *_of_speed(records)]
    lines = [f"Left out of the curves: {text}." for text in records.not_finite[:_SHOWN]]
    more = len(records.not_finite) - _SHOWN
    if more > 0:
        lines.append(f"Left out of the curves: {more:,} more numbers that are not finite.")
    counted = any(known(records.of_head(h, "empty")) for h in range(len(records.n_clusters)))
    if counted and not _ever_empty(records):
        lines.append("No head had an empty cluster in any epoch.")
    return Section(title="Curves", note=_NOTE, lines=lines, charts=shown)


def _of_training(records: RunRecords) -> list[Chart]:
    found = []
    for name, title, y_title, level in (
        ("loss", "Loss", "loss", None),
        ("loss_over_chance", "Loss as a share of ln K", "share of ln K", ("chance", 1.0)),
        ("lr", "Learning rate", "learning rate", None),
    ):
        values = records.values(name)
        if known(values):
            found.append(
                charts.curves(
                    records.epochs,
                    [Curve(name=name, y=values)],
                    y_title=y_title,
                    title=title,
                    level=level,
                    from_zero=name != "loss",
                )
            )
    return found


def _of_heads(records: RunRecords) -> list[Chart]:
    heads = range(len(records.n_clusters))
    names = [f"K={k:,}" for k in records.n_clusters]
    found = []
    trained = records.trained
    churn = [
        Curve(name=names[h], y=trained.of_head(h, "churn"), colour=h)
        for h in heads
        if known(trained.of_head(h, "churn"))
    ]
    if churn:
        title = "Churn: images whose label differs from the epoch before"
        found.append(
            charts.curves(
                trained.epochs, churn, y_title="share of images", title=title, percent=True
            )
        )
    sizes = []
    for h in heads:
        mean = records.images / records.n_clusters[h]
        for name, dash in (("largest", "solid"), ("smallest", "dot")):
            values = [None if v is None else v / mean for v in records.of_head(h, name)]
            if known(values):
                sizes.append(
                    Curve(
                        name=names[h] if name == "largest" else f"{names[h]}, smallest",
                        y=values,
                        colour=h,
                        dash=dash,
                        listed=name == "largest",
                    )
                )
    if sizes:
        title = "Largest and smallest (dotted) cluster, as multiples of N / K"
        found.append(
            charts.curves(
                records.epochs,
                sizes,
                y_title="size / (N / K)",
                title=title,
                log=_ever_large(sizes),
                level=("N / K", 1.0),
            )
        )
    for name, title, y_title, percent in (
        ("violation", "Constraint violation: largest breach of a bound on sizes", "", True),
        ("empty", "Empty clusters", "clusters", False),
    ):
        lines = [Curve(name=names[h], y=records.of_head(h, name), colour=h) for h in heads]
        if any(known(line.y) for line in lines) and (name != "empty" or _ever_empty(records)):
            y_title = y_title or "share of the bound"
            found.append(
                charts.curves(records.epochs, lines, y_title=y_title, title=title, percent=percent)
            )
    return found


def _of_speed(records: RunRecords) -> list[Chart]:
    found = []
    probes = [
        Curve(name=name, y=records.values(key), colour=i)
        for i, (key, name) in enumerate(PROBES.items())
        if known(records.values(key))
    ]
    if probes:
        found.append(
            charts.curves(
                *_measured(records, probes),
                y_title="accuracy, %",
                title="Probe: accuracy of the frozen backbone",
                from_zero=False,
            )
        )
    ranks = [
        Curve(name=name, y=records.values(key), colour=i)
        for i, (key, name) in enumerate(RANKS.items())
        if known(records.values(key))
    ]
    if ranks:
        found.append(
            charts.curves(
                *_measured(records, ranks),
                y_title="dimensions",
                title="Effective rank of the features (RankMe)",
            )
        )
    memory = [None if v is None or v == 0 else v / _GIB for v in records.values("peak_memory")]
    for values, title, y_title, percent in (
        (records.values("images_per_second"), "Speed", "img/s", False),
        (records.values("data_wait"), "Time spent waiting for data", "share of time", True),
        (memory, "Peak memory so far", "GiB", False),
    ):
        if known(values):
            found.append(
                charts.curves(
                    records.epochs,
                    [Curve(name=title, y=values)],
                    y_title=y_title,
                    title=title,
                    percent=percent,
                )
            )
    return found


def _measured(records: RunRecords, curves: list[Curve]) -> tuple[list[int], list[Curve]]:
    """The epochs in which something was measured, so that a line joins them."""
    rows = [e for e in range(len(records.lines)) if any(c.y[e] is not None for c in curves)]
    epochs = [records.epochs[e] for e in rows]
    return epochs, [
        Curve(name=c.name, y=[c.y[e] for e in rows], colour=c.colour, dash=c.dash) for c in curves
    ]


def _ever_large(sizes: list[Curve]) -> bool:
    """Whether the largest cluster was so much larger that a linear axis would hide the others."""
    return max(max(known(curve.y)) for curve in sizes) > 10


def _ever_empty(records: RunRecords) -> bool:
    return any(
        value > 0
        for head in range(len(records.n_clusters))
        for value in known(records.of_head(head, "empty"))
    )
