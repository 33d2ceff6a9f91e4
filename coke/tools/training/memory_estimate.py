"""How much memory a rank of a training run needs, before it starts.

The network's part is measured: forward pass, backward pass and optimiser step run once on fake
tensors, which have sizes and no data, while the bytes of living tensors are counted. It takes
seconds, no memory and no GPU. The other parts are arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coke.clustering import LabelStore
from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.distributed.process_group import world_size
from coke.files.byte_size import show_bytes
from coke.model.activation_checkpointing import checkpoint_activations
from coke.model.coke_model import build_model
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.training.learner import Learner
from coke.tools.training.live_memory import LiveMemory
from coke.tools.training.peak_memory import resident_memory

#: CUDA's context and kernels, workspaces of cuDNN and cuBLAS, buffers of NCCL.
GPU_OVERHEAD = 1 << 30
#: Memory inside convolutions on a CPU, as a share of activations. ResNet-50 at 224 pixels and
#: batch 24 took 3.0 GiB, of which 2.65 GiB were tensors.
CPU_WORKSPACE = 0.2
_VIEWS_AT_ONCE = 4  # batches in memory: one in training, three in the loader's queue
_STAGES = 3  # float images between two operators of the loader's graph
_MICRO_BATCHES = 2  # gradients are there from the second piece on: more pieces change nothing


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes that one rank needs, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    views: int
    decoding: int
    clustering: int
    checkpoint: int
    workspace: int
    process: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def __str__(self) -> str:
        found = ((name, size) for name, size in asdict(self).items() if size)
        parts = sorted(found, key=lambda part: -part[1])
        return ", ".join(f"{name} {show_bytes(size)}" for name, size in parts)


def estimate_memory(
    config: Config,
    recipes: Sequence[ViewRecipe],
    *,
    n_ids: int,
    pixels: float,
    world: int,
    precision: str,
    device: torch.device,
) -> MemoryEstimate:
    """Bytes that one rank of a run needs on its device; on a CPU, those of the whole process.

    Args:
        recipes: the views of an image, at their largest.
        n_ids: number of images N.
        pixels: of a stored image, mean.
        world: number of ranks.
        precision: resolved.
    """
    rows, piece = largest_rows(config, n_ids, world)
    network = _dry_run(config, tuple(recipes), piece, precision)
    on_gpu = device.type == "cuda"
    return MemoryEstimate(
        **network,
        views=views_bytes(recipes, rows),
        decoding=decoding_bytes(recipes, rows, pixels),
        clustering=clustering_bytes(config, n_ids, rows),
        checkpoint=0 if on_gpu else _checkpoint_bytes(config, n_ids, network),
        workspace=0 if on_gpu else round(CPU_WORKSPACE * network["activations"]),
        process=GPU_OVERHEAD if on_gpu else resident_memory(),
    )


def largest_rows(config: Config, n_ids: int, world: int) -> tuple[int, int]:
    """Images of a rank in a batch and in a piece of it; a small data set has no more."""
    batch = config.data.batch_size
    return tuple(  # type: ignore[return-value]
        -(-min(images, n_ids) // world) for images in (batch, batch // config.optimizer.accumulate)
    )


def views_bytes(recipes: Sequence[ViewRecipe], rows: int) -> int:
    """Views of the batches that are in memory at once."""
    return _VIEWS_AT_ONCE * _batch_bytes(recipes, rows)


def decoding_bytes(recipes: Sequence[ViewRecipe], rows: int, pixels: float) -> int:
    """Decoded images, and what becomes of them between the loader's operators."""
    return round(rows * 3 * pixels) + _STAGES * _batch_bytes(recipes, rows)


def _batch_bytes(recipes: Sequence[ViewRecipe], rows: int) -> int:
    return rows * sum(3 * 4 * recipe.size**2 for recipe in recipes)


@lru_cache(maxsize=16)  # a second question is about another budget, world size or data set
def _dry_run(
    config: Config, recipes: tuple[ViewRecipe, ...], rows: int, precision: str
) -> dict[str, int]:
    """Weights, gradients, optimiser state and activations of a step, counted on fake tensors."""
    pieces = min(config.optimizer.accumulate, _MICRO_BATCHES)
    batch = config.changed(
        optimizer={"accumulate": pieces},
        # Current labels would need numbers, which fake tensors lack; the size is the same.
        clustering={"labels_from": "last_epoch"},
        data={"batch_size": rows * pieces * world_size()},
    )
    largest = max(config.clustering.n_clusters)  # the label store's size is counted apart
    with FakeTensorMode():
        model = build_model(config.model, config.seed)
        if config.machine.checkpoint_activations:
            checkpoint_activations(model)
        learner = Learner(
            batch,
            model,
            n_ids=largest,
            n_points=largest,
            device=torch.device("cpu"),
            precision=precision,
        )
        views = [torch.empty(rows * pieces, 3, recipe.size, recipe.size) for recipe in recipes]
        targets = [torch.zeros(rows * pieces, dtype=torch.int64) for _ in learner.clustering.heads]
        with LiveMemory() as live:
            learner.add_gradients(views, targets)
            peak = live.peak
            learner.optimizer.step()
        optimizer = learner.optimizer
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients, weights = (
            sum(p.numel() * p.element_size() for p in parameters)
            for parameters in (trained, model.parameters())
        )
        state = [t for of in optimizer.state.values() for t in of.values()]
        return {
            "weights": weights + sum(b.numel() * b.element_size() for b in model.buffers()),
            "gradients": gradients,
            "optimizer": sum(t.numel() * t.element_size() for t in state if torch.is_tensor(t)),
            "activations": max(0, peak - gradients),
        }


def clustering_bytes(config: Config, n_ids: int, rows: int) -> int:
    """The clustering's state, its targets, and the assignment of a batch."""
    clusters = config.clustering.n_clusters
    batch = 3 * 4 * config.data.batch_size * (max(clusters) + config.model.dim)
    targets = 4 * rows * sum(clusters) if _has_second_stage(config) else 0
    undo = max(4 * k * config.model.dim for k in clusters)  # a head's centers from before a step
    return _clustering_state_bytes(config, n_ids) + batch + targets + undo


def _clustering_state_bytes(config: Config, n_ids: int) -> int:
    """Centers, duals, label store, averaged labels."""
    settings, clusters = config.clustering, config.clustering.n_clusters
    centers = sum(4 * k * (2 * config.model.dim + 2) for k in clusters)
    hard = n_ids * len(clusters) * LabelStore(1, clusters).bytes_per_label
    if not _has_second_stage(config):
        return centers + hard
    slot = 4 + (2 if max(clusters) <= 0x7FFF else 4)  # a weight and a cluster
    return centers + hard + n_ids * len(clusters) * settings.label_size * slot


def _has_second_stage(config: Config) -> bool:
    return config.optimizer.epochs >= config.clustering.first_stage_epochs


def _checkpoint_bytes(config: Config, n_ids: int, network: Mapping[str, int]) -> int:
    """The copy of the state that rank 0 writes while training goes on."""
    return network["weights"] + network["optimizer"] + _clustering_state_bytes(config, n_ids)


def mean_pixels(index: ImageIndex) -> float:
    """Pixels of a stored image, mean over a few thousand of them."""
    rows = index.rows[:: max(1, len(index) // 4096)]
    return float((rows["height"].astype(float) * rows["width"]).mean())
