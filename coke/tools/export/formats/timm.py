"""Weights for timm: of its ResNet, whose names are torchvision's, and of its own networks."""

from __future__ import annotations

from coke.config.model import TIMM
from coke.tools.export.formats.resnet_names import check_standard_resnet, small_stem
from coke.tools.export.formats.state_dict import StateDict, reading
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Timm(StateDict):
    """The state dict of ``timm.create_model(NAME, num_classes=0)``."""

    name = "timm"

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        if not network.config.model.backbone.startswith(TIMM):
            check_standard_resnet(network, "timm")

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        reader, read = reading(name)
        model = network.config.model
        stem: list[str] = []
        if model.backbone.startswith(TIMM):
            size = f", img_size={model.image_size}" if model.image_size else ""
            made = f"{model.backbone.removeprefix(TIMM)!r}, num_classes=0{size}"
        else:
            stem, made = small_stem(model), f"'resnet{model.depth}', num_classes=0"
        return "\n".join(
            [
                *sorted({"import timm", reader, *(["import torch"] if stem else [])}),
                f"net = timm.create_model({made})",
                *stem,
                f"net.load_state_dict({read})",
            ]
        )
