"""Vision transformers (Dosovitskiy et al., ICLR 2021) whose state-dict names and shapes are timm's.

So weights move both ways. They are written out here because timm imports torchvision, which needs a
build for the installed torch.

Shapes: B images, N patches, T = N + 1 tokens (the class token first), D width of a token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coke.config.model import check_vit

#: Width, blocks and heads by size, as timm has them (Touvron et al., ICML 2021).
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
_EPS = 1e-6  # of the layer norms
_INIT_STD = 0.02  # of token, positions and linear layers


class _Patches(nn.Module):
    """Images (B, 3, H, W) -> patches (B, N, D), row by row."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        parts = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, T, D / heads)
        found = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return mixed


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        mapped: Tensor = self.fc2(F.gelu(self.fc1(x_BTD)))
        return mapped


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = _MLP(width)

    def forward(self, x_BTD: Tensor, share_2B: Tensor | None = None) -> Tensor:
        """Tokens after the block.

        Args:
            share_2B: what attention and MLP of each image are multiplied by; None for 1. It comes
                from outside, so that a block whose activations are computed again draws nothing.
        """
        attended, mapped = None, None
        if share_2B is not None:
            attended, mapped = share_2B[:, :, None, None].unbind()
        x_BTD = x_BTD + _times(self.attn(self.norm1(x_BTD)), attended)
        return x_BTD + _times(self.mlp(self.norm2(x_BTD)), mapped)


def _times(x: Tensor, share: Tensor | None) -> Tensor:
    return x if share is None else x * share


class VisionTransformer(nn.Module):
    """A ViT without its classifier: images (B, 3, H, W) -> features (B, D).

    H and W are any multiples of the patch: position embeddings are interpolated to the grid of the
    images, as timm does with ``dynamic_img_size``. Large and small views, and views that grow, go
    through one network.

    Args:
        size: ``"tiny"``, ``"small"`` or ``"base"``.
        patch: side of a patch in pixels: 4, 8, 14 or 16.
        image_size: side in pixels of the images that position embeddings are made for, a multiple
            of the patch.
        pool: ``"class"`` for the class token, ``"mean"`` for the mean of the patches' tokens; both
            after the last layer norm.
        drop_path: probability with which attention or MLP of the last block is left out for an
            image in training (stochastic depth, Huang et al., ECCV 2016). It rises evenly from 0 in
            the first block.
        freeze_patches: the patches' projection stays as it was drawn (Chen et al., MoCo v3, ICCV
            2021, Sec. 4.2), against steps that spoil the training.

    Attributes:
        dim: feature dimension D.
        patch: side of a patch in pixels.

    Raises:
        ValueError: an option that does not exist, or an image size that is no multiple of the
            patch.
    """

    def __init__(
        self,
        *,
        size: str = "small",
        patch: int = 16,
        image_size: int = 224,
        pool: str = "class",
        drop_path: float = 0.0,
        freeze_patches: bool = False,
    ) -> None:
        super().__init__()
        check_vit(size=size, patch=patch, image_size=image_size, pool=pool, drop_path=drop_path)
        self.dim, depth, heads = SIZES[size]
        self.patch, self.drop_path = patch, drop_path
        self._from_class = pool == "class"
        self._side = image_size // patch  # patches in a row of the position embeddings
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self._side**2, self.dim))
        self.patch_embed = _Patches(patch, self.dim)
        self.blocks = nn.ModuleList(Block(self.dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(self.dim, eps=_EPS)
        self._initialise()
        self.patch_embed.requires_grad_(not freeze_patches)

    def _initialise(self) -> None:
        nn.init.normal_(self.cls_token, std=_INIT_STD)
        nn.init.normal_(self.pos_embed, std=_INIT_STD)
        # As a linear layer of 3 x patch x patch numbers: a convolution's own start is for filters.
        bound = math.sqrt(6 / (3 * self.patch**2 + self.dim))
        nn.init.uniform_(self.patch_embed.proj.weight, -bound, bound)
        nn.init.zeros_(self.patch_embed.proj.bias)  # type: ignore[arg-type]
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x_BTD = self._tokens(images)
        shares = self._shares(images.shape[0], images.device)
        for number, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, None if shares is None else shares[number])
        if self._from_class:
            features_BD: Tensor = self.norm(x_BTD[:, 0])
            return features_BD
        patches_BND: Tensor = self.norm(x_BTD[:, 1:])
        return patches_BND.mean(dim=1)

    def _tokens(self, images: Tensor) -> Tensor:
        """Class token and patches (B, T, D), with the embeddings of their positions."""
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images are {height} x {width} pixels; a ViT takes multiples of its patch, which "
                f"has {self.patch}"
            )
        patches_BND = self.patch_embed(images)
        # Not len(images), a constant in an exported graph.
        token_B1D = self.cls_token.expand(images.shape[0], -1, -1)
        tokens_BTD = torch.cat([token_B1D.to(patches_BND.dtype), patches_BND], dim=1)
        return tokens_BTD + interpolated(self.pos_embed, height // self.patch, width // self.patch)

    def _shares(self, count: int, device: torch.device) -> Tensor | None:
        """Factors (blocks, 2, B) of stochastic depth: 0, or the inverse of the chance to stay."""
        if not self.training or self.drop_path == 0:
            return None
        depth = len(self.blocks)
        stays = 1 - torch.linspace(0, self.drop_path, depth, device=device)[:, None, None]
        return (torch.rand(depth, 2, count, device=device) < stays) / stays


def interpolated(positions_1TD: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings (1, 1 + rows x columns, D) for another grid of patches.

    Bicubic with antialiasing, as timm's, and float32 under autocast. The class token's stays.

    Args:
        positions_1TD: those of a square grid, after that of the class token.
    """
    side = math.isqrt(positions_1TD.shape[1] - 1)
    if (rows, columns) == (side, side):
        return positions_1TD
    with torch.autocast(positions_1TD.device.type, enabled=False):
        grid = positions_1TD[0, 1:].unflatten(0, (side, side))
        # Two matrix products give the same sums at every call, also backwards on a GPU.
        down = _bicubic(side, rows, positions_1TD)
        across = _bicubic(side, columns, positions_1TD)
        found = torch.einsum("yr,rcd,xc->yxd", down, grid, across)
        return torch.cat([positions_1TD[:, :1], found.flatten(0, 1)[None]], dim=1)


def _bicubic(n_in: int, n_out: int, like: Tensor) -> Tensor:
    """The matrix (n_out, n_in) of bicubic interpolation with antialiasing along one axis."""
    one_hot = torch.eye(n_in, dtype=like.dtype, device=like.device)[None, None]
    matrix = F.interpolate(one_hot, size=(n_out, n_in), mode="bicubic", antialias=True)
    return matrix[0, 0]
