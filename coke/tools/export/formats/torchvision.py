"""Weights for torchvision's ResNet, which has the names and shapes of our own."""

from __future__ import annotations

from coke.tools.export.formats.resnet_names import check_standard_resnet, small_stem
from coke.tools.export.formats.state_dict import StateDict, reading
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Torchvision(StateDict):
    """The state dict of ``torchvision.models.resnet50`` and its like, without ``fc``."""

    name = "torchvision"

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        check_standard_resnet(network, "torchvision")

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        reader, read = reading(name)
        model = network.config.model
        return "\n".join(
            [
                *sorted({"import torch", "import torchvision", reader}),
                f"net = torchvision.models.resnet{model.depth}()",
                *small_stem(model),
                "net.fc = torch.nn.Identity()",
                f"net.load_state_dict({read})",
            ]
        )
