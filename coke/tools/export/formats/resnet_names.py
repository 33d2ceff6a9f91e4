"""Which of our ResNets other libraries have too."""

from __future__ import annotations

from coke.config.model import RESNET, ModelConfig
from coke.tools.export.trained_network import TrainedNetwork

#: Depths that torchvision and timm have under a name such as ``resnet50``.
_DEPTHS = (18, 34, 50, 101)
_WIDTH = 64
#: Formats that hold any network, for messages.
_ANY = "--format onnx and --format pt2 hold any network"


def check_standard_resnet(network: TrainedNetwork, library: str) -> None:
    """Raises ValueError where no ``resnet18`` ... ``resnet101`` of a library has the network's
    names and shapes. A small stem is not refused: it is two modules that a user can replace.
    """
    model = network.config.model
    found = [] if model.backbone == RESNET else [f"it is a {model.network}"]
    if not found and model.depth not in _DEPTHS:
        found.append(f"its depth is {model.depth}, not one of {', '.join(map(str, _DEPTHS))}")
    if not found and model.width != _WIDTH:
        found.append(f"its width is {model.width}, not {_WIDTH}")
    if model.backbone == RESNET and model.expand:
        found.append(expansion(model))
    refuse(network, library, found)


def expansion(model: ModelConfig) -> str:
    """Why a network with an expansion is refused."""
    return f"it widens its features (model.expand is {model.expand})"


def refuse(network: TrainedNetwork, library: str, differences: list[str]) -> None:
    """Raises ValueError where a library cannot express a network, with the reasons."""
    if differences:
        raise ValueError(
            f"{library} cannot express the network of {network.run}: {', and '.join(differences)}; "
            f"{_ANY}"
        )


def small_stem(model: ModelConfig) -> list[str]:
    """The line that gives a ResNet of torchvision or timm our small stem; none for the usual."""
    if model.stem != "small":
        return []
    convolution = f"torch.nn.Conv2d(3, {_WIDTH}, 3, padding=1, bias=False)"
    return [f"net.conv1, net.maxpool = {convolution}, torch.nn.Identity()"]
