"""Which parameters are decayed, and how fast each layer learns."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

#: Parameters of more than one dimension that are no matrices, by the ends of their names.
_TOKENS = ("cls_token", "pos_embed")
_BACKBONE = "backbone."
_BLOCK = re.compile(r"blocks\.(\d+)\.")
#: What stands before the blocks of a vision transformer.
_EMBEDDING = ("cls_token", "pos_embed", "patch_embed.", "norm_pre.")

#: Key of a group: the group's share of the learning rate.
LR_SHARE = "lr_share"


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for a parameter: not for biases, norms, tokens, and positions."""
    return parameter.ndim > 1 and name.rpartition(".")[2] not in _TOKENS


def parameter_groups(
    model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """All trained parameters in groups for an optimiser: decayed ones, then those that are not.

    Args:
        weight_decay: of the decayed.
        layer_decay: each layer's learning rate as a share of the next one's (Bao et al., BEiT, ICLR
            2022): 1 above the last block, then once less for each block, and once more for the
            embedding of patches. Groups then have the key ``lr_share``. 1 for equal rates.

    Raises:
        ValueError: layers should differ, but the backbone has no blocks.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if layer_decay == 1:
        return _by_decay(named, weight_decay)
    blocks = 1 + max((_block_of(name) for name, _ in named), default=-1)
    if blocks == 0:
        raise ValueError(
            f"optimizer.layer_decay is {layer_decay}, but the backbone has no blocks to count; it "
            "is for vision transformers: leave it at 1"
        )
    groups: list[dict[str, Any]] = []
    for layer in range(blocks + 2):
        members = [(name, p) for name, p in named if layer_of(name, blocks) == layer]
        share = layer_decay ** (blocks + 1 - layer)
        groups += [
            {**group, LR_SHARE: share}
            for group in _by_decay(members, weight_decay)
            if group["params"]
        ]
    return groups


def layer_of(name: str, blocks: int) -> int:
    """Number of a parameter's layer: 0 for the embedding of patches, blocks from 1, and
    ``blocks + 1`` for all that follows.

    Args:
        name: in the model, with or without ``backbone.`` in front.
        blocks: number of blocks of the backbone.
    """
    block = _block_of(name)
    if block >= 0:
        return block + 1
    return 0 if name.removeprefix(_BACKBONE).startswith(_EMBEDDING) else blocks + 1


def _block_of(name: str) -> int:
    found = _BLOCK.match(name.removeprefix(_BACKBONE))
    return -1 if found is None else int(found[1])


def _by_decay(named: list[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    decayed = [p for name, p in named if is_decayed(name, p)]
    plain = [p for name, p in named if not is_decayed(name, p)]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
