"""Section ``[model]``: backbone, projector, predictor."""

from __future__ import annotations

from dataclasses import dataclass

RESNET = "resnet"
VIT = "vit"
TIMM = "timm:"

#: Sizes, patches (sides in pixels) and poolings of our vision transformers.
VIT_SIZES = ("tiny", "small", "base")
VIT_PATCHES = (4, 8, 14, 16)
VIT_POOLS = ("class", "mean")
#: Side in pixels of the images that a vision transformer is made for if none is given.
VIT_IMAGE_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Backbone and heads.

    Attributes:
        backbone: ``"resnet"``, ``"vit"``, or ``"timm:NAME"`` for a network of timm.
        depth, width, stem, expand: of a ResNet, see :class:`coke.model.resnet.ResNet`; without
            effect on other networks.
        size, patch, pool, drop_path, freeze_patches: of a ViT, see
            :class:`coke.model.vit.VisionTransformer`; the first three without effect on other
            networks.
        image_size: side in pixels of the images that a transformer is made for. A ViT interpolates
            its position embeddings for others; a transformer of timm takes no others. 0 for 224,
            or for the default of timm's.
        projector_layers, projector_hidden: layers and hidden width of the projector's MLP.
        dim: dimension D of the features that are clustered.
        projector_last_norm: batch norm after the projector's last layer, as the release has it.
        predictor_hidden: hidden width of the 2-layer predictor; 0 for no predictor.
    """

    backbone: str = RESNET
    depth: int = 50
    width: int = 64
    stem: str = "imagenet"
    expand: int = 0
    size: str = "small"
    patch: int = 16
    pool: str = "class"
    drop_path: float = 0.0
    freeze_patches: bool = False
    image_size: int = 0
    projector_layers: int = 2
    projector_hidden: int = 2048
    dim: int = 128
    projector_last_norm: bool = True
    predictor_hidden: int = 0

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        if self.image_size != 0 and (self.image_size < 8 or self.backbone == RESNET):
            raise ValueError(
                f"model image_size is {self.image_size} for {self.backbone}; it is for "
                "transformers, at least 8, or 0"
            )
        for name in ("drop_path", "freeze_patches"):
            if getattr(self, name) and self.backbone != VIT:
                raise ValueError(
                    f"model {name} is {getattr(self, name)} for {self.backbone}; it is for {VIT!r}"
                )
        if self.backbone == VIT:
            check_vit(
                size=self.size,
                patch=self.patch,
                image_size=self.image_size or VIT_IMAGE_SIZE,
                pool=self.pool,
                drop_path=self.drop_path,
            )
        for name in ("projector_layers", "projector_hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name} is {getattr(self, name)}; it must be at least 1")
        if self.predictor_hidden < 0:
            raise ValueError(f"model predictor_hidden is {self.predictor_hidden}; 0 means none")

    @property
    def network(self) -> str:
        """The backbone in words."""
        if self.backbone == RESNET:
            return f"ResNet-{self.depth}, width {self.width}"
        if self.backbone == VIT:
            return f"ViT-{self.size}/{self.patch}"
        return self.backbone

    @property
    def side_multiple(self) -> int:
        """The sides of all views are multiples of so many pixels."""
        return self.patch if self.backbone == VIT else 1


def check_backbone(backbone: str) -> None:
    """Raises ValueError for a name that is none of ``resnet``, ``vit`` and ``timm:NAME``."""
    if backbone in (RESNET, VIT) or (backbone.startswith(TIMM) and len(backbone) > len(TIMM)):
        return
    raise ValueError(
        f"model backbone is {backbone!r}; choose {RESNET!r} (with model.depth), {VIT!r} (with "
        f"model.size and model.patch), or {TIMM + 'NAME'!r} for a network of timm, such as "
        "'timm:vit_small_patch16_224'"
    )


def check_vit(*, size: str, patch: int, image_size: int, pool: str, drop_path: float) -> None:
    """Raises ValueError for options that no :class:`coke.model.vit.VisionTransformer` has."""
    for name, value, known in (
        ("size", size, VIT_SIZES),
        ("patch", patch, VIT_PATCHES),
        ("pool", pool, VIT_POOLS),
    ):
        if value not in known:
            choices = ", ".join(map(str, known))
            raise ValueError(f"model {name} is {value!r}; of a ViT, choose one of {choices}")
    if image_size < patch or image_size % patch:
        raise ValueError(
            f"model image_size is {image_size}, and model patch {patch}: give a multiple of the "
            f"patch, such as {patch * max(1, round(image_size / patch))}"
        )
    if not 0 <= drop_path < 1:
        raise ValueError(f"model drop_path is {drop_path}; give a probability, 0 <= p < 1")
