"""Gathered batches: ranks that cluster them equal one process, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from coke.clustering import Clustering
from coke.distributed.gather import gather_batch
from tests.support.patience import PATIENCE_S

N, DIM, WORLD, EPOCHS, FIRST_STAGE = 50, 6, 2, 5, 2
#: Rows of each rank, step by step; the last batch is ragged, and rank 1 has nothing of it.
PARTS = [(8, 8), (8, 8), (8, 7), (3, 0)]
SETTINGS = [(rule, ratio) for rule in ("paper", "auto") for ratio in (0.4, 1.0)]


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    """The global batches of an epoch."""
    base = torch.randn(N, DIM, generator=torch.Generator().manual_seed(100))
    generator = torch.Generator().manual_seed(epoch)
    features = F.normalize(base + 0.5 * torch.randn(N, DIM, generator=generator), dim=1)
    ids = torch.randperm(N, generator=generator)
    return [(features[rows], rows) for rows in ids.split([sum(part) for part in PARTS])]


def clustered(rule: str, ratio: float, rank: int | None = None) -> list[Tensor]:
    """Everything that is learned, after every step: with this rank's rows, or in one process."""
    c = Clustering(
        n_ids=N,
        dim=DIM,
        n_clusters=(4, 7),
        min_ratio=ratio,
        dual_rule=rule,
        dual_lr=2.0,
        first_stage_epochs=FIRST_STAGE,
        label_size=2,
    )
    everything = torch.arange(N)
    trace: list[Tensor] = []
    for epoch in range(EPOCHS):
        for part, (x, ids) in zip(PARTS, batches(epoch), strict=True):
            if rank is not None:
                mine = slice(sum(part[:rank]), sum(part[: rank + 1]))
                known = part if epoch % 2 else None
                x, ids = gather_batch(x[mine].requires_grad_(), ids[mine], sizes=known)
                assert not x.requires_grad
            trace += [x, ids, *c.step(x, ids), c.label_store.read(everything)]
            for head in c.heads:
                trace += [head.duals, head.running_centers, head.counts]
            trace = [t.clone() for t in trace]
        c.end_epoch()
        trace += [*c.targets(everything), *(head.centers.clone() for head in c.heads)]
    assert c.soft_labels is not None
    for soft in c.soft_labels:
        trace += [soft.clusters_NS, soft.weights_NS]
    return trace


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    try:
        traces = [clustered(rule, ratio, rank) for rule, ratio in SETTINGS]
        with pytest.raises(ValueError, match=re.escape("sizes is [3, 3], but rank")):
            gather_batch(torch.zeros(2, DIM), torch.arange(2), sizes=[3, 3])
        torch.save(traces, f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_are_one_process_on_the_same_global_batches(tmp_path: Path) -> None:
    context: Any = spawn(run_rank, (str(tmp_path),), WORLD, join=False)
    try:
        for _ in range(WORLD):  # join returns at the first end of a process
            if context.join(timeout=PATIENCE_S):
                break
        else:
            pytest.fail(f"the ranks did not end within {WORLD * PATIENCE_S} s")
    finally:
        for process in context.processes:
            process.kill()
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for setting, one, two in zip(SETTINGS, *ranks, strict=True):
        alone = clustered(*setting)
        assert len(alone) == len(one) == len(two)
        for a, b, c in zip(alone, one, two, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_one_process_gets_its_rows_back_without_a_gradient() -> None:
    x, ids = torch.randn(3, 2, requires_grad=True), torch.arange(3)
    features, gathered = gather_batch(x, ids)
    assert torch.equal(features, x)
    assert not features.requires_grad
    assert torch.equal(gathered, ids)


@pytest.mark.parametrize(
    ("features", "ids", "message"),
    [
        (torch.zeros(3, 2), torch.arange(2), "features have shape (3, 2), ids (2,)"),
        (torch.zeros(3), torch.arange(3), "features have shape (3,), ids (3,)"),
        (torch.zeros(3, 2).half(), torch.arange(3), "features are torch.float16 and ids"),
        (torch.zeros(3, 2), torch.arange(3).int(), "and ids torch.int32; give float32 and int64"),
    ],
)
def test_batches_that_cannot_be_sent_are_refused(
    features: Tensor, ids: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gather_batch(features, ids)
