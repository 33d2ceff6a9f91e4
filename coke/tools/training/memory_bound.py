"""A quick upper bound of the memory a rank needs.

The estimate of :mod:`coke.tools.training.memory_estimate` takes seconds. Most small runs need far
less than is free; the bound says so at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from coke.config.config import Config
from coke.config.model import RESNET, VIT, ModelConfig
from coke.config.view_recipe import ViewRecipe
from coke.model.resnet import BLOCKS
from coke.model.vit import SIZES
from coke.tools.training.memory_estimate import (
    CPU_WORKSPACE,
    clustering_bytes,
    decoding_bytes,
    largest_rows,
    views_bytes,
)

_FLOAT = 4  # bytes
#: Tensors as large as a layer's output that training holds for it: outputs of the convolution and
#: of its norm, and a gradient.
_TENSORS_PER_LAYER = 3
_COPIES_OF_WEIGHTS = 5  # weights, gradients, momentum; weights and momentum in a checkpoint
_ADAM = 2  # two moments in place of momentum, and again in a checkpoint


def memory_bound(
    config: Config, recipes: Sequence[ViewRecipe], *, n_ids: int, pixels: float, world: int
) -> int | None:
    """Bytes that a rank takes at most beside what its process has already.

    None for a network of timm, whose layers are not known.

    Args: as of :func:`coke.tools.training.memory_estimate.estimate_memory`.
    """
    model = config.model
    if model.backbone not in (RESNET, VIT):
        return None
    rows, piece = largest_rows(config, n_ids, world)
    backbone = sum(_backbone_values(model, recipe.size) for recipe in recipes)
    heads = 8 * (sum(config.clustering.n_clusters) + model.projector_hidden * _mlp_layers(model))
    activations = _FLOAT * piece * (backbone + len(recipes) * heads)
    copies = _COPIES_OF_WEIGHTS + (_ADAM if config.optimizer.name == "adamw" else 0)
    return (
        round((1 + CPU_WORKSPACE) * activations)
        + copies * _FLOAT * _weights(model)
        + views_bytes(recipes, rows)
        + decoding_bytes(recipes, rows, pixels)
        + 2 * clustering_bytes(config, n_ids, rows)  # once more in a checkpoint
    )


def _backbone_values(model: ModelConfig, side: int) -> int:
    """Numbers that the backbone keeps of one view."""
    if model.backbone == VIT:
        width, depth, heads = SIZES[model.size]
        tokens = (side // model.patch) ** 2 + 1
        return depth * tokens * (40 * width + 4 * heads * tokens)
    block, repeats = BLOCKS[model.depth]
    stem = model.width * side**2
    if model.stem == "imagenet":
        stem, side = (
            stem // 2,
            -(-side // 4),
        )  # the stem's side is a half, pooling makes it a quarter
    values, width = stem, model.width
    for blocks in repeats:
        # As many channels as two inner convolutions and the last one have, and a shortcut.
        values += blocks * side**2 * width * (2 + 2 * block.expansion)
        side, width = -(-side // 2), 2 * width
    return _TENSORS_PER_LAYER * (values + model.expand * (2 * side) ** 2)


def _weights(model: ModelConfig) -> int:
    if model.backbone == VIT:
        width, depth, _ = SIZES[model.size]
        backbone = (depth + 1) * 16 * width**2 + 1024 * width
    else:
        width = 32 * model.width  # of a bottleneck's outputs in the last stage
        backbone = (model.depth + 4) * 9 * (8 * model.width) ** 2 + width * model.expand
    inputs = max(width, model.expand)
    hidden, last = model.projector_hidden, model.dim
    projector = inputs * hidden + _mlp_layers(model) * hidden * (hidden + 4) + hidden * last
    return backbone + projector + 2 * last * model.predictor_hidden


def _mlp_layers(model: ModelConfig) -> int:
    return model.projector_layers + 2
