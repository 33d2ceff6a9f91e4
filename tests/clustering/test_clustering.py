"""Heads and label store together, as a training loop uses them."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering
from coke.model.loss import coke_loss

N, DIM, BATCH, FIRST = 24, 4, 7, 2


def build(**options: Any) -> Clustering:
    settings: dict[str, Any] = {
        "n_ids": N,
        "dim": DIM,
        "n_clusters": (3, 5),
        "first_stage_epochs": FIRST,
        "label_size": 2,
    } | options
    return Clustering(**settings)


def batches(epoch: int, n: int = N) -> list[tuple[Tensor, Tensor]]:
    """Features and ids of an epoch's steps; the features drift, so labels change."""
    generator = torch.Generator().manual_seed(100)
    base = torch.randn(n, DIM, generator=generator)
    drift = torch.randn(n, DIM, generator=torch.Generator().manual_seed(epoch))
    features = F.normalize(base + 0.7 * drift, dim=1)
    ids = torch.randperm(n, generator=torch.Generator().manual_seed(epoch))
    return [(features[rows], rows) for rows in ids.split(BATCH)]


def run_epoch(c: Clustering, epoch: int) -> None:
    for x, ids in batches(epoch):
        c.step(x, ids)
    c.end_epoch()


def test_two_heads_by_hand() -> None:
    """Head 0 has the axes as centers, head 1 their negatives: labels are opposite."""
    axes = torch.eye(2)
    c = Clustering(
        n_ids=4,
        dim=2,
        n_clusters=(2, 2),
        min_ratio=0.0,
        dual_rule="paper",
        dual_lr=0.0,
        centers=[axes, -axes],
    )
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = c.step(x, torch.tensor([2, 0, 3]))
    assert [row.tolist() for row in labels] == [[0, 1, 1], [1, 0, 0]]
    assert [t.tolist() for t in c.targets(torch.tensor([0, 1, 2, 3]))] == [
        [1, -1, 0, 1],
        [0, -1, 1, 0],
    ]
    assert [h.counts.tolist() for h in c.heads] == [[1.0, 2.0], [2.0, 1.0]]
    assert c.label_store.epoch == 0


def test_heads_do_not_see_each_other() -> None:
    both = build(dual_rule="paper")
    centers = [h.centers.clone() for h in both.heads]
    alone = [
        build(dual_rule="paper", n_clusters=(k,), centers=[c])
        for k, c in zip((3, 5), centers, strict=True)
    ]
    for epoch in range(4):
        for x, ids in batches(epoch):
            together = both.step(x, ids)
            for j, single in enumerate(alone):
                assert torch.equal(single.step(x, ids)[0], together[j])
        for c in (both, *alone):
            c.end_epoch()
    for j, single in enumerate(alone):
        assert torch.equal(single.heads[0].centers, both.heads[j].centers)


def test_targets_are_last_epochs_labels() -> None:
    c = build(first_stage_epochs=100)
    previous: dict[int, list[int]] = {}
    for epoch in range(3):
        written: dict[int, list[int]] = {}
        for x, ids in batches(epoch):
            if epoch:  # read before written
                asked = torch.stack(c.targets(ids), 1).tolist()
                assert asked == [previous[i] for i in ids.tolist()]
            labels = torch.stack(c.step(x, ids), 1).tolist()
            written |= dict(zip(ids.tolist(), labels, strict=True))
            if epoch == 0:  # the scan: what was just assigned
                assert torch.stack(c.targets(ids), 1).tolist() == labels
        c.end_epoch()
        assert written != previous
        previous = written


def test_targets_are_hard_until_the_second_epoch_of_the_second_stage() -> None:
    c = build()
    for epoch in range(5):
        _, ids = batches(epoch)[0]
        if epoch:
            for target, head in zip(c.targets(ids), c.heads, strict=True):
                if epoch <= FIRST:
                    assert target.dtype == torch.int64 and target.shape == (len(ids),)
                    continue
                assert target.dtype == torch.float32
                assert target.shape == (len(ids), head.n_clusters)
                torch.testing.assert_close(target.sum(1), torch.ones(len(ids)))
                assert (target > 0).sum(1).max() <= 2  # label_size
        run_epoch(c, epoch)
    assert (c.targets(torch.arange(N))[1] > 0).sum(1).max() == 2


def test_the_average_starts_anew_with_the_second_stage() -> None:
    """After the first epoch of the second stage each averaged label has one entry, of weight 1."""
    c = build()
    for epoch in range(FIRST + 1):
        run_epoch(c, epoch)
    ids = torch.arange(N)
    for soft, hard in zip(c.targets(ids), c.label_store.read(ids), strict=True):
        assert torch.equal(soft.argmax(1), hard)
        assert (soft.amax(1) == 1).all()


def test_current_targets_are_what_the_step_will_assign() -> None:
    c = build(dual_rule="paper", dual_lr=3.0, labels_from="current")
    for epoch in range(FIRST + 2):  # into the second stage
        for x, ids in batches(epoch):
            before = copy.deepcopy(c.state_dict())
            current = c.current_targets(x)
            after = c.state_dict()
            for saved, head in zip(before["heads"], after["heads"], strict=True):
                for name in ("centers", "running_centers", "duals", "counts"):
                    assert torch.equal(saved[name], head[name])
            assert torch.equal(torch.stack(current), torch.stack(c.step(x, ids)))
        c.end_epoch()
    with pytest.raises(ValueError, match=re.escape("features have shape (7, 3)")):
        c.current_targets(torch.ones(7, 3))


def test_loss_centers_are_last_epochs_or_the_moving_ones() -> None:
    """C^{t-1} against C^t of Table 2."""
    last, current = build(), build(centers_from="current")
    for epoch in range(FIRST + 2):
        frozen = [h.centers.clone() for h in last.heads]
        for x, ids in batches(epoch):
            for c in (last, current):
                c.step(x, ids)
            for kept, moving, before, head in zip(
                last.loss_centers(), current.loss_centers(), frozen, last.heads, strict=True
            ):
                assert torch.equal(kept, before)
                torch.testing.assert_close(moving.norm(dim=1), torch.ones(len(moving)))
                # In the second stage no centers move within an epoch.
                assert torch.equal(moving, kept if last.second_stage else head.running_centers)
                assert torch.equal(moving, kept) == last.second_stage
        for c in (last, current):
            c.end_epoch()


def test_centers_once_per_epoch_are_the_means_of_their_clusters() -> None:
    """Eqn. 10 by a loop, and labels by last epoch's centers whatever the batch."""
    c = build(center_update="epoch", dual_rule="paper", dual_lr=0.0, first_stage_epochs=100)
    for epoch in range(3):
        frozen = [h.centers.clone() for h in c.heads]
        given = [(x, ids, c.step(x, ids)) for x, ids in batches(epoch)]
        c.end_epoch()
        x = torch.cat([x for x, _, _ in given])
        for j, (head, before) in enumerate(zip(c.heads, frozen, strict=True)):
            labels = torch.cat([labels[j] for _, _, labels in given])
            assert torch.equal(labels, (x @ before.T).argmax(1))
            for k in range(head.n_clusters):
                own = x[labels == k]
                expected = F.normalize(own.mean(0), dim=0) if len(own) else before[k]
                torch.testing.assert_close(head.centers[k], expected)
                assert torch.equal(head.running_centers[k], head.centers[k])


@pytest.mark.parametrize("views", [2, 3, 8])
def test_the_label_of_several_views_is_that_of_their_mean_similarity(views: int) -> None:
    """Eqn. 15: one label maximises the mean over views of similarity, plus the dual."""
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(views, N, DIM, generator=generator), dim=2)
    c = build(dual_rule="paper", dual_lr=2.0)
    for rows in torch.arange(N).split(BATCH):
        expected = [
            torch.stack([v[rows] @ h.running_centers.T for v in x]).mean(0).add(h.duals).argmax(1)
            for h in c.heads
        ]
        got = c.step(x.mean(0)[rows], rows)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dual_rule", ["paper", "auto"])
@pytest.mark.parametrize("min_ratio", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_every_ratio_clusters(dual_rule: str, min_ratio: float) -> None:
    """Sizes count every id once; duals are free at ratio 1, never negative below, idle at 0."""
    c = build(dual_rule=dual_rule, min_ratio=min_ratio, dual_lr=2.0)
    duals = []
    for epoch in range(4):
        for x, ids in batches(epoch):
            c.step(x, ids)
            duals += [head.duals.clone() for head in c.heads]
        assert [int(head.counts.sum()) for head in c.heads] == [N, N]
        c.end_epoch()
    assert (torch.cat(duals).min() < 0) == (min_ratio == 1)
    assert (torch.cat(duals).max() > 0) == (min_ratio > 0)


@pytest.mark.slow
@pytest.mark.parametrize("center_update", ["running", "epoch"])
@pytest.mark.parametrize(("dual_rule", "min_ratio"), [("paper", 0.4), ("auto", 0.4), ("auto", 1.0)])
def test_restoring_at_every_step_changes_nothing(
    dual_rule: str, min_ratio: float, center_update: str
) -> None:
    epochs = 5
    options: dict[str, Any] = {
        "dual_rule": dual_rule,
        "min_ratio": min_ratio,
        "dual_lr": 3.0,
        "center_update": center_update,
    }
    original = build(**options)
    saved: list[tuple[int, int, dict[str, Any]]] = []
    trace: list[list[Tensor]] = []

    def snapshot(c: Clustering, labels: list[Tensor]) -> list[Tensor]:
        kept = [*labels, *c.targets(torch.arange(N))]
        for h in c.heads:
            kept += [h.duals, h.centers, h.running_centers, h.counts]
        return [t.clone() for t in kept]

    def go_on(c: Clustering, epoch: int, step: int) -> list[Tensor]:
        x, ids = batches(epoch)[step]
        labels = c.step(x, ids)
        if step == len(batches(epoch)) - 1:
            reports = c.end_epoch()
            labels = [*labels, torch.tensor([r.churn for r in reports])]
        return snapshot(c, labels)

    steps = [(e, s) for e in range(epochs) for s in range(len(batches(e)))]
    for epoch, step in steps:
        saved.append((epoch, step, copy.deepcopy(original.state_dict())))
        trace.append(go_on(original, epoch, step))
    assert saved[-1][2]["soft_labels"] is not None  # the run went into the second stage

    for at, (_, _, state) in enumerate(saved):
        restored = build(**options, seed=99)
        restored.load_state_dict(state)
        for (epoch, step), expected in zip(steps[at:], trace[at:], strict=True):
            got = go_on(restored, epoch, step)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_reports_by_hand() -> None:
    c = Clustering(
        n_ids=10,
        dim=2,
        n_clusters=(2,),
        min_ratio=0.8,
        dual_rule="paper",
        dual_lr=0.0,
        centers=[torch.eye(2)],
    )
    right, up = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    c.step(torch.cat([right.expand(9, 2), up]), torch.arange(10))
    (report,) = c.end_epoch()
    assert (report.n_clusters, report.smallest, report.largest, report.empty) == (2, 1, 9, 0)
    assert report.violation == pytest.approx(0.75)  # due 0.8 * 10 / 2 = 4, got 1
    assert report.churn == 1.0  # every id is new
    c.step(right.expand(5, 2), torch.arange(5))
    c.step(right.expand(5, 2), torch.arange(5, 10))
    (report,) = c.end_epoch()
    assert (report.smallest, report.largest, report.empty) == (0, 10, 1)
    assert report.violation == pytest.approx(1.0)
    assert report.churn == pytest.approx(0.1)  # id 9 alone moved


def test_auto_holds_the_bound_where_the_papers_step_fails() -> None:
    n, epochs = 400, 6
    violations = {}
    for rule in ("paper", "auto"):
        c = build(n_ids=n, n_clusters=(20,), dual_rule=rule, first_stage_epochs=100)
        base = torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))
        x = F.normalize(base + torch.tensor([2.0, 0, 0, 0]), dim=1)
        for epoch in range(epochs):
            ids = torch.randperm(n, generator=torch.Generator().manual_seed(epoch))
            for rows in ids.split(200):
                c.step(x[rows], rows)
            (report,) = c.end_epoch()
        violations[rule] = report.violation
    assert violations["auto"] <= 0.125
    assert violations["paper"] == 1  # empty clusters


def skewed(n: int, dim: int) -> Tensor:
    """Directions around eight, of which one holds a third of the points."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(8, dim, generator=generator), dim=1)
    shares = 1 / torch.arange(1, 9).float()
    which = torch.multinomial(shares, n, replacement=True, generator=generator)
    noise = 0.1 * torch.randn(n, dim, generator=generator)
    return F.normalize(directions[which] + noise, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("first_stage_epochs", [100, 3])
def test_an_upper_bound_holds_over_epochs_in_both_stages(first_stage_epochs: int) -> None:
    n, k, x = 1600, 16, skewed(1600, 16)
    largest = {}
    for max_ratio in (0.0, 1.2):
        c = Clustering(
            n_ids=n,
            dim=16,
            n_clusters=(k,),
            min_ratio=0.4,
            max_ratio=max_ratio,
            first_stage_epochs=first_stage_epochs,
        )
        for epoch in range(6):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(epoch))
            for ids in order.split(100):
                c.step(x[ids], ids)
            report = c.end_epoch()[0]
        largest[max_ratio] = report.largest * k / n
        assert report.smallest >= 0.4 * n / k
        above = 0.0 if max_ratio == 0 else max(0.0, largest[max_ratio] / max_ratio - 1)
        assert report.violation == pytest.approx(above, abs=1e-6)
    assert largest[0.0] > 1.5 and largest[1.2] < 1.25


@pytest.mark.slow
def test_the_papers_rule_keeps_an_upper_bound_too() -> None:
    n, k, x = 6400, 8, skewed(6400, 16)
    largest = []
    for max_ratio in (0.0, 1.3):
        c = Clustering(
            n_ids=n,
            dim=16,
            n_clusters=(k,),
            min_ratio=0.4,
            max_ratio=max_ratio,
            dual_rule="paper",
            dual_lr=1.0,
        )
        for epoch in range(4):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(epoch))
            for ids in order.split(64):
                c.step(x[ids], ids)
            report = c.end_epoch()[0]
        largest.append(report.largest * k / n)
    assert largest[0] > 1.5 and largest[1] < 1.4
    assert (c.heads[0].duals < 0).any(), "an upper bound that binds has a negative dual"


def test_same_seed_same_centers() -> None:
    a, b, other = build(seed=3), build(seed=3), build(seed=4)
    for x, y, z in zip(a.heads, b.heads, other.heads, strict=True):
        assert torch.equal(x.centers, y.centers)
        assert not torch.equal(x.centers, z.centers)
        torch.testing.assert_close(x.centers.norm(dim=1), torch.ones(x.n_clusters))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_clusters": ()}, "n_clusters is empty"),
        ({"n_clusters": (3, 1)}, "n_clusters has a head with 1 clusters"),
        ({"n_clusters": (25,)}, "n_clusters has a head with 25 clusters for 24 images"),
        ({"min_ratio": 1.1}, "min_ratio is 1.1"),
        ({"min_ratio": -0.1}, "min_ratio is -0.1"),
        ({"min_ratio": float("nan")}, "min_ratio is nan"),
        ({"max_ratio": 0.9}, "max_ratio is 0.9"),
        ({"max_ratio": float("nan")}, "max_ratio is nan"),
        ({"dual_rule": "best"}, "dual_rule is 'best'; choose one of paper, auto"),
        ({"label_size": 0}, "label_size is 0"),
        ({"center_update": "daily"}, "center_update is 'daily'; choose one of running, epoch"),
        ({"labels_from": "now"}, "labels_from is 'now'; choose one of last_epoch, current"),
        ({"centers_from": "now"}, "centers_from is 'now'; choose one of last_epoch, current"),
        (
            {"center_update": "epoch", "centers_from": "current"},
            "centers_from is 'current', but with center_update 'epoch' centers do not move",
        ),
        (
            {"centers": [torch.eye(3, 4)]},
            "centers have shapes [(3, 4)]; heads with n_clusters (3, 5) and dim 4 "
            "need [(3, 4), (5, 4)]",
        ),
        ({"centers": [torch.eye(3, 4), torch.eye(5, 3)]}, "centers have shapes [(3, 4), (5, 3)]"),
        ({"label_temperature": 0.0}, "label_temperature is 0.0"),
    ],
)
def test_wrong_settings_name_their_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**wrong)


@pytest.mark.parametrize(
    ("features", "ids", "message"),
    [
        (torch.ones(7, 3), torch.arange(7), "features have shape (7, 3); give (B, 4)"),
        (torch.ones(7), torch.arange(7), "features have shape (7,); give (B, 4)"),
        (torch.ones(7, 4, 1), torch.arange(7), "features have shape (7, 4, 1); give (B, 4)"),
        (torch.ones(0, 4), torch.arange(0), "features have shape (0, 4); give (B, 4), as dim says"),
        (torch.ones(6, 4), torch.arange(7), "features have shape (6, 4) and ids (7,); give one id"),
        (torch.ones(7, 4), torch.zeros(7, 1).long(), "and ids (7, 1); give one id per row"),
        (torch.ones(7, 4).half(), torch.arange(7), "features are torch.float16; give float32"),
        (torch.ones(7, 4), torch.ones(7).bool(), "ids are torch.bool; give int64"),
    ],
)
def test_features_must_fit_ids_and_dim(features: Tensor, ids: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build().step(features, ids)


UNFIT: list[tuple[dict[tuple[int, int], float], dict[int, int], str]] = [
    ({(3, 1): math.nan}, {}, "the features of id 13 hold NaN or infinity"),
    ({(0, 0): -math.inf}, {}, "the features of id 10 hold NaN or infinity"),
    ({(5, d): 0.0 for d in range(DIM)}, {}, "the features of id 15 are a zero vector"),
    ({}, {2: -1}, "ids hold -1; with n_ids 24 they must be 0 to 23"),
    ({}, {2: N}, "ids hold 24; with n_ids 24 they must be 0 to 23"),
    ({}, {2: 15}, "id 15 is repeated inside a batch"),
]


def unfit(x: dict[tuple[int, int], float], ids: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Seven rows of ids 10 to 16, apart from these entries."""
    features, rows = torch.full((7, DIM), 0.5), torch.arange(10, 17)
    for at, value in x.items():
        features[at] = value
    for row, i in ids.items():
        rows[row] = i
    return features, rows


@pytest.mark.parametrize(("x", "ids", "message"), UNFIT)
def test_an_unfit_batch_is_refused_before_anything_changes(
    x: dict[tuple[int, int], float], ids: dict[int, int], message: str
) -> None:
    c = build()
    before = copy.deepcopy(c.state_dict())
    with pytest.raises(ValueError, match=re.escape(message)):
        c.step(*unfit(x, ids))
    after = c.state_dict()
    assert torch.equal(after["label_store"]["labels"], before["label_store"]["labels"])
    for saved, head in zip(before["heads"], after["heads"], strict=True):
        assert all(torch.equal(saved[k], head[k]) for k in ("running_centers", "duals", "counts"))
    c.step(*unfit({}, {}))  # and it goes on
    c.end_epoch()


@pytest.mark.parametrize("dual_rule", ["paper", "auto"])
@pytest.mark.parametrize("first_stage_epochs", [100, 1])
def test_a_batch_that_does_not_count_changes_nothing(
    dual_rule: str, first_stage_epochs: int
) -> None:
    """A step that does not count changes nothing; one that counts gives what it gives unasked."""
    yes, no = torch.tensor(True), torch.tensor(False)
    plain, asked = (
        build(dual_rule=dual_rule, first_stage_epochs=first_stage_epochs) for _ in range(2)
    )
    for epoch in range(3):
        for features, ids in batches(epoch):
            labels = plain.step(features, ids)
            for found, expected in zip(asked.step(features, ids, yes), labels, strict=True):
                assert torch.equal(found, expected)
            before = copy.deepcopy(asked.state_dict())
            kept = asked.label_store.read(ids.flip(0))
            for bad in (-features, torch.full_like(features, math.nan)):
                for found, stored in zip(asked.step(bad, ids.flip(0), no), kept, strict=True):
                    assert torch.equal(found, stored)
                same_state(asked.state_dict(), before)
        assert plain.end_epoch() == asked.end_epoch()
        same_state(asked.state_dict(), plain.state_dict())
    never_seen = build(dual_rule=dual_rule)
    features, ids = batches(0)[0]
    assert all((labels == -1).all() for labels in never_seen.step(features, ids, no))
    assert (never_seen.label_store.read(ids) == -1).all()


def same_state(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same_state(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            same_state(x, y)
    else:
        assert a == b


@pytest.mark.gpu
def test_on_a_gpu_no_step_waits_and_the_epochs_end_raises() -> None:
    for rule in ("paper", "auto"):
        for x, ids, message in UNFIT:
            c = build(device="cuda", dual_rule=rule, first_stage_epochs=0)
            good = [t.cuda() for t in unfit({}, {})]
            bad = [t.cuda() for t in unfit(x, ids)]
            c.step(good[0], good[1])  # the second stage sets up its labels
            c.end_epoch()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for features, rows in (good, bad, good):
                    c.targets(good[1])
                    c.step(features, rows)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            with pytest.raises(ValueError, match=re.escape(message)):
                c.end_epoch()


@pytest.mark.gpu
@pytest.mark.parametrize("dual_rule", ["paper", "auto"])
def test_a_gpu_gives_the_same_bits_again(dual_rule: str) -> None:
    """Ranks that see the same batches must not drift apart."""
    features = F.normalize(torch.randn(2000, 64, device="cuda"), dim=1)
    states = []
    for _ in range(3):
        c = build(n_ids=2000, dim=64, n_clusters=(10, 30), device="cuda", dual_rule=dual_rule)
        for _ in range(4):
            for ids in torch.arange(2000, device="cuda").split(700):
                c.step(features[ids], ids)
            c.end_epoch()
        states.append([t for h in c.heads for t in (h.centers, h.running_centers, h.duals)])
    for other in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], other, strict=True))


def test_a_mismatched_state_is_refused() -> None:
    saved = build().state_dict()
    with pytest.raises(ValueError, match="saved clustering has 2 heads, this one 1"):
        build(n_clusters=(3,)).load_state_dict(saved)
    with pytest.raises(ValueError, match=re.escape("saved centers are (5, 4), this head has (6,")):
        build(n_clusters=(3, 6)).load_state_dict(saved)
    with pytest.raises(ValueError, match=re.escape("saved labels are (2, 24)")):
        build(n_ids=25).load_state_dict(saved)


def test_averaged_labels_of_another_size_are_refused() -> None:
    c = build()
    for epoch in range(FIRST + 1):
        run_epoch(c, epoch)
    with pytest.raises(ValueError, match="2.*4|4.*2"):
        build(label_size=4).load_state_dict(c.state_dict())


@pytest.mark.slow
def test_everything_is_restored_to_the_device_of_the_clustering() -> None:
    c = build()
    for epoch in range(FIRST + 1):
        run_epoch(c, epoch)
    elsewhere = build(device="meta")
    elsewhere.load_state_dict(c.state_dict())
    assert elsewhere.heads[0].centers.device.type == "meta"
    assert elsewhere.soft_labels is not None
    assert elsewhere.soft_labels[0].weights_NS.device.type == "meta"


def test_ids_left_out_of_the_scan_can_be_trained_on() -> None:
    c = build()
    for x, ids in batches(0)[:-1]:  # 24 % 7 = 3 ids are left out, as with drop_ragged
        c.step(x, ids)
    c.end_epoch()
    for x, ids in batches(1)[:-1]:
        loss = coke_loss(x, None, [h.centers for h in c.heads], c.targets(ids), temperature=0.1)
        assert torch.isfinite(loss)
        c.step(x, ids)


@pytest.mark.parametrize("ratio", [0.9, 1.0])
def test_ids_without_an_image_do_not_count_for_the_bound(ratio: float) -> None:
    """A tenth of the ids are tombstones: labels still settle where the images' bound asks."""
    n, live, k = 440, 400, 10
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(n, 8, generator=generator), dim=1)
    ids = torch.randperm(n, generator=generator)[:live]
    c = Clustering(
        n_ids=n, n_points=live, dim=8, n_clusters=(k,), min_ratio=ratio, dual_rule="auto"
    )
    for _ in range(6):
        for batch in ids[torch.randperm(live, generator=generator)].split(64):
            c.step(x[batch], batch)
        (report,) = c.end_epoch()
    assert report.smallest >= (0.95 if ratio == 1 else 1) * ratio * live / k
    assert report.churn > 0  # labels are free to move
    with pytest.raises(ValueError, match="n_points is 441; give how many of the 440 ids"):
        Clustering(n_ids=n, n_points=441, dim=8, n_clusters=(k,))


def test_a_bound_that_is_no_whole_number_is_kept() -> None:
    """0.8 of 330 / 100 is 2.64: two would be too few, which a bound rounded down allows."""
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(330, 8, generator=generator), dim=1)
    c = Clustering(n_ids=330, dim=8, n_clusters=(100,), min_ratio=0.8, dual_rule="auto")
    for _ in range(6):
        for ids in torch.randperm(330, generator=generator).split(64):
            c.step(x[ids], ids)
        (report,) = c.end_epoch()
    assert report.smallest == 3 and report.violation == 0


def test_the_state_of_an_older_version_is_refused_with_a_remedy() -> None:
    c = build()
    state = copy.deepcopy(c.state_dict())
    del state["heads"][0]["sizes"]
    with pytest.raises(ValueError, match="no 'sizes': an older coke wrote it; .* --init-from"):
        build().load_state_dict(state)
