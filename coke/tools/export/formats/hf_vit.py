"""Our ViT by the names of ``ViTModel`` of transformers.

The names are those in files. In memory, transformers 5 has others, and translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from coke.model.vit import Block, VisionTransformer

_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_NAMES_IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = ("query", "key", "value")


def config_of(net: VisionTransformer, size: int) -> dict[str, Any]:
    """Settings of the ``ViTModel`` of the same shape.

    Its pooling, a linear layer and an activation behind the class token, does nothing: so that
    ``pooler_output`` is the class token.

    Args:
        size: side in pixels of the images that position embeddings are for.
    """
    block = net.blocks[0]
    assert isinstance(block, Block)
    return {
        "model_type": "vit",
        "num_channels": 3,
        "image_size": size,
        "patch_size": net.patch,
        "hidden_size": net.dim,
        "num_hidden_layers": len(net.blocks),
        "num_attention_heads": block.attn.heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": net.norm.eps,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pooler_output_size": net.dim,
        "pooler_act": "linear",
    }


def tensors_of(net: VisionTransformer) -> dict[str, Tensor]:
    """The state dict of ``ViTModel``, as its files have it."""
    found = dict(_renamed(net))
    found["pooler.dense.weight"] = torch.eye(net.dim)
    found["pooler.dense.bias"] = torch.zeros(net.dim)
    return found


def _renamed(net: VisionTransformer) -> Iterator[tuple[str, Tensor]]:
    for name, value in net.state_dict().items():
        if not name.startswith("blocks."):
            layer, last = _split(name, _NAMES)
            yield _NAMES[layer] + last, value
            continue
        _, number, inner = name.split(".", 2)
        start = f"encoder.layer.{number}."
        if inner.startswith("attn.qkv."):
            for part, values in zip(_QKV, value.chunk(3), strict=True):
                yield f"{start}attention.attention.{part}{inner.removeprefix('attn.qkv')}", values
            continue
        layer, last = _split(inner, _NAMES_IN_BLOCK)
        yield start + _NAMES_IN_BLOCK[layer] + last, value


def _split(name: str, known: dict[str, str]) -> tuple[str, str]:
    """``norm1.weight`` is ``norm1`` and ``.weight``; ``cls_token`` has no second part."""
    if name in known:
        return name, ""
    layer, _, last = name.rpartition(".")
    return layer, f".{last}"
