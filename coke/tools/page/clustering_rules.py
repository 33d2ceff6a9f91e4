"""Rules of advice about labels and clusters. A rule returns what it finds wrong, or None."""

from __future__ import annotations

from coke.tools.page.content import Finding
from coke.tools.page.run_facts import SETTLED_EPOCH, RunFacts
from coke.tools.page.run_records import PROJECTED_RANK, RunRecords, last
from coke.tools.training.report import COLLAPSED_SHARE, LOSS_AT_CHANCE

#: Multiple of N / K from which on a cluster counts as a giant. The paper's largest had 5.5.
GIANT = 10.0
#: Breach of a bound on sizes, as a share of it, that a clustering should not have.
VIOLATION = 0.1
#: Share of the churn that labels drawn at random would have, 1 - 1/K.
RANDOM_CHURN = 0.97
#: Share of the width of the features that their effective rank should have.
LOW_RANK = 0.05


def collapse(facts: RunFacts) -> Finding | None:
    """One cluster holds most images."""
    records, worst = facts.records, _largest(facts, per_mean=False)
    if worst is None or worst[1] <= COLLAPSED_SHARE * records.images:
        return None
    k, size = worst
    return Finding(
        title="The clustering has collapsed",
        numbers=f"In epoch {records.epochs[-1]} one cluster of the head with K={k:,} holds "
        f"{size:,.0f} of {records.images:,} images ({size / records.images:.0%}).",
        rule=f"one cluster holds more than {COLLAPSED_SHARE:.0%} of the images",
        remedy="raise clustering.min_ratio (1.0 asks for equal sizes), use "
        "clustering.dual_rule=auto, or lower optimizer.lr. The features of this run are of no "
        "use: start again from the epoch before the collapse, or anew.",
        docs="docs/report.md#collapse",
    )


def loss_at_chance(facts: RunFacts) -> Finding | None:
    """The loss is that of predicting nothing."""
    records = facts.records
    share = last(records.values("loss_over_chance"))
    if share is None or share <= LOSS_AT_CHANCE or records.epochs[-1] < SETTLED_EPOCH:
        return None
    remedy = (
        "lower loss.temperature, use fewer clusters (clustering.n_clusters), or change optimizer.lr"
    )
    if facts.config.data.views > 1 and not facts.config.loss.alpha_warmup:
        remedy += "; with several views set loss.alpha_warmup=1.0, which begins with the labels"
    return Finding(
        title="The loss stays at chance",
        numbers=f"After epoch {records.epochs[-1]} the loss is {share:.2f} of ln K; 1 is what "
        "predicting all clusters equally gives.",
        rule=f"the loss is above {LOSS_AT_CHANCE} of ln K in epoch {SETTLED_EPOCH} or later",
        remedy=remedy + ".",
        docs="docs/report.md#loss-at-chance",
    )


def empty(facts: RunFacts) -> Finding | None:
    """Clusters without an image."""
    records = facts.records
    for head, k in enumerate(records.n_clusters):
        empty = last(records.of_head(head, "empty"))
        if empty:
            return Finding(
                title="Clusters are empty",
                numbers=f"In epoch {records.epochs[-1]} {empty:,.0f} of the {k:,} clusters of a "
                "head are empty.",
                rule="a head has an empty cluster in the last epoch",
                remedy="raise clustering.min_ratio, which is "
                f"{facts.config.clustering.min_ratio}, use clustering.dual_rule=auto, or use "
                "fewer clusters: "
                f"the data has {records.images / k:,.0f} images for each.",
                docs="docs/report.md#empty-clusters",
            )
    return None


def giant(facts: RunFacts) -> Finding | None:
    """A cluster far above the mean size."""
    records, worst = facts.records, _largest(facts, per_mean=True)
    if worst is None or worst[1] > COLLAPSED_SHARE * records.images:
        return None
    k, size = worst
    multiple = size * k / records.images
    if multiple <= GIANT:
        return None
    return Finding(
        title="A cluster is a giant",
        numbers=f"In epoch {records.epochs[-1]} the largest cluster of the head with K={k:,} has "
        f"{size:,.0f} images, {multiple:,.1f} times the mean of {records.images / k:,.0f}.",
        rule=f"a cluster has more than {GIANT:.0f} times the mean size",
        remedy="set clustering.max_ratio, or clustering.min_ratio=1.0 for equal sizes. Look at the "
        "largest clusters in the gallery: a giant often holds what is alike for a simple reason, "
        "such as a white background.",
        docs="docs/report.md#giant-clusters",
    )


def violation(facts: RunFacts) -> Finding | None:
    """Clusters beyond the sizes that were asked for."""
    records = facts.records
    worst = _worst_head(records, "violation")
    if worst is None or worst[1] <= VIOLATION:
        return None
    return Finding(
        title="The size constraint is not kept",
        numbers=f"In epoch {records.epochs[-1]} a cluster of the head with K={worst[0]:,} is "
        f"{worst[1]:.0%} beyond its smallest or largest size.",
        rule=f"a cluster's size breaks a bound by more than {VIOLATION:.0%}",
        remedy="use clustering.dual_rule=auto."
        if facts.config.clustering.dual_rule != "auto"
        else "use fewer clusters, or larger batches (data.batch_size).",
        docs="docs/report.md#constraint-violation",
    )


def churn(facts: RunFacts) -> Finding | None:
    """Labels that change as if at random."""
    records = facts.records
    if not records.lines or records.epochs[-1] < SETTLED_EPOCH:
        return None
    for head, k in enumerate(records.n_clusters):
        churn = last(records.of_head(head, "churn"))
        random = 1 - 1 / k
        if churn is not None and churn > RANDOM_CHURN * random:
            return Finding(
                title="Labels change as if at random",
                numbers=f"In epoch {records.epochs[-1]} {churn:.1%} of the images changed their "
                f"cluster in the head with K={k:,}; labels drawn at random would give "
                f"{random:.1%}.",
                rule=f"churn is above {RANDOM_CHURN:.0%} of 1 - 1/K in epoch {SETTLED_EPOCH} or "
                "later",
                remedy="use fewer clusters, so that each has more images; lower optimizer.lr; or "
                "train longer: churn falls with the learning rate.",
                docs="docs/report.md#churn",
            )
    return None


def low_rank(facts: RunFacts) -> Finding | None:
    """Features that use few dimensions."""
    rank = last(facts.records.values(PROJECTED_RANK))
    width = facts.config.model.dim
    if rank is None or rank >= LOW_RANK * width:
        return None
    return Finding(
        title="The features use few dimensions",
        numbers=f"Their effective rank (RankMe) is {rank:.1f}; the projector has {width} "
        "dimensions.",
        rule=f"the effective rank is below {LOW_RANK:.0%} of the projector's width",
        remedy="the features are close to collapsing: raise clustering.min_ratio, use more "
        "clusters, or lower optimizer.lr.",
        docs="docs/report.md#low-rank",
    )


def _largest(facts: RunFacts, *, per_mean: bool) -> tuple[int, float] | None:
    """K and size of the largest cluster in the last epoch: in images, or by its mean size."""
    records = facts.records
    found = [
        (size * k if per_mean else size, k, size)
        for head, k in enumerate(records.n_clusters)
        if (size := last(records.of_head(head, "largest"))) is not None
    ]
    return None if not found else max(found)[1:]


def _worst_head(records: RunRecords, name: str) -> tuple[int, float] | None:
    """K and value of the head with the largest value in the last epoch."""
    found = [
        (value, k)
        for head, k in enumerate(records.n_clusters)
        if (value := last(records.of_head(head, name))) is not None
    ]
    return None if not found else max(found)[::-1]
