"""Section ``[model]``: backbone, projector, predictor."""

from __future__ import annotations

from dataclasses import dataclass

RESNET = "resnet"
TIMM = "timm:"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Backbone and heads.

    Attributes:
        backbone: ``"resnet"``, or ``"timm:NAME"`` for a network of timm.
        depth, width, stem, expand: of a ResNet, see :class:`coke.model.resnet.ResNet`; without
            effect on a network of timm.
        image_size: side in pixels of the views that a transformer of timm is built for; 0 for the
            transformer's default.
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
                "transformers of timm, at least 8, or 0"
            )
        for name in ("projector_layers", "projector_hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name} is {getattr(self, name)}; it must be at least 1")
        if self.predictor_hidden < 0:
            raise ValueError(f"model predictor_hidden is {self.predictor_hidden}; 0 means none")

    @property
    def network(self) -> str:
        """The backbone in words."""
        if self.backbone != RESNET:
            return self.backbone
        return f"ResNet-{self.depth}, width {self.width}"


def check_backbone(backbone: str) -> None:
    """Raises ValueError for a name that is neither ``resnet`` nor ``timm:NAME``."""
    if backbone != RESNET and not (backbone.startswith(TIMM) and len(backbone) > len(TIMM)):
        raise ValueError(
            f"model backbone is {backbone!r}; choose {RESNET!r} (with model.depth), or "
            f"{TIMM + 'NAME'!r} for a network of timm, such as 'timm:vit_small_patch16_224'"
        )
