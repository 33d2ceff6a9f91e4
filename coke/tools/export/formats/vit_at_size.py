"""A ViT whose position embeddings are those of one size of images."""

from __future__ import annotations

import copy

from torch import nn

from coke.model.vit import VisionTransformer, interpolated


def vit_at_size(network: VisionTransformer, size: int) -> VisionTransformer:
    """A copy with position embeddings for images of a side of ``size`` pixels.

    It gives the same features for them, and interpolates nothing. Other libraries interpolate in
    other ways, and a graph would be of one size anyway.
    """
    net, side = copy.deepcopy(network), size // network.patch
    net.pos_embed = nn.Parameter(interpolated(network.pos_embed, side, side), requires_grad=False)
    return net
