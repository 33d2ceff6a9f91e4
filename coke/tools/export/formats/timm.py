"""Weights for timm: its ResNets and ViTs, whose names are ours, and its own networks."""

from __future__ import annotations

from coke.config.model import RESNET, TIMM, VIT_IMAGE_SIZE, ModelConfig
from coke.tools.export.formats.resnet_names import check_standard_resnet, small_stem
from coke.tools.export.formats.state_dict import StateDict, reading
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Timm(StateDict):
    """The state dict of ``timm.create_model(NAME, num_classes=0)``."""

    name = "timm"

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        if network.config.model.backbone == RESNET:
            check_standard_resnet(network, "timm")

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        reader, read = reading(name)
        model = network.config.model
        stem = small_stem(model) if model.backbone == RESNET else []
        return "\n".join(
            [
                *sorted({"import timm", reader, *(["import torch"] if stem else [])}),
                f"net = timm.create_model({_options(model)})",
                *stem,
                f"net.load_state_dict({read})",
            ]
        )


def _options(model: ModelConfig) -> str:
    """What makes timm's network of the same names, shapes and features."""
    if model.backbone == RESNET:
        return f"'resnet{model.depth}', num_classes=0"
    if model.backbone.startswith(TIMM):
        size = f", img_size={model.image_size}" if model.image_size else ""
        return f"{model.backbone.removeprefix(TIMM)!r}, num_classes=0{size}"
    # Without `fc_norm=False`, timm norms behind the mean instead of before it.
    pooling = "" if model.pool == "class" else ", global_pool='avg', fc_norm=False"
    return (
        f"'vit_{model.size}_patch16_224', patch_size={model.patch}, "
        f"img_size={model.image_size or VIT_IMAGE_SIZE}, dynamic_img_size=True, num_classes=0"
        f"{pooling}"
    )
