"""Weights for torchvision's ResNet, which has the names and shapes of our own."""

from __future__ import annotations

from coke.config.model import RESNET, ModelConfig
from coke.tools.export.formats import state_dict
from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

_DEPTHS = (18, 34, 50, 101)


class Torchvision(Format):
    """The state dict of ``torchvision.models.resnet50`` and its like, without ``fc``."""

    name = "torchvision"
    suffixes = state_dict.SUFFIXES

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        differences = resnet_differences(network.config.model)
        if differences:
            raise ValueError(
                f"the network of run {network.run} is no ResNet of torchvision: "
                f"{'; '.join(differences)}"
            )

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        return {name: state_dict.state_dict_bytes(network.backbone.state_dict(), name)}

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        reader, read = state_dict.loading(name)
        model = network.config.model
        lines = [
            *sorted({"import torch", "import torchvision", reader}),
            f"net = torchvision.models.resnet{model.depth}()",
        ]
        if model.stem == "small":
            lines.append(
                "net.conv1, net.maxpool = "
                "torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()"
            )
        lines += ["net.fc = torch.nn.Identity()", f"net.load_state_dict({read})"]
        return "\n".join(lines)


def resnet_differences(model: ModelConfig) -> list[str]:
    """What keeps a network from having the names and shapes of a ResNet of torchvision."""
    if model.backbone != RESNET:
        return [f"it is a {model.backbone}"]
    found = []
    if model.depth not in _DEPTHS:
        found.append(f"its depth is {model.depth}, not one of {', '.join(map(str, _DEPTHS))}")
    if model.width != 64:
        found.append(f"its width is {model.width}, not 64")
    if model.expand:
        found.append(f"it widens its features (model.expand is {model.expand})")
    return found
