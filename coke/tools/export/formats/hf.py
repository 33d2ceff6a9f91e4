"""A folder that ``AutoModel`` and ``AutoImageProcessor`` of transformers load."""

from __future__ import annotations

import json
from typing import Any

from coke.config.model import RESNET, VIT
from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer
from coke.tools.export.formats import hf_resnet, hf_vit
from coke.tools.export.formats.format import Format
from coke.tools.export.formats.resnet_names import refuse
from coke.tools.export.formats.state_dict import check_package, state_dict_bytes
from coke.tools.export.formats.vit_at_size import vit_at_size
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_BILINEAR = 2  # PIL's number, which transformers uses


class HuggingFace(Format):
    """``ResNetModel`` or ``ViTModel`` of transformers, by its settings and its names."""

    name = "hf"
    files = frozenset((_WEIGHTS, _CONFIG, _PROCESSOR))

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        model = network.config.model
        if model.backbone == RESNET:
            refuse(network, "transformers", hf_resnet.differences(model))
        elif model.backbone != VIT:
            refuse(network, "transformers", [f"it is a {model.network}"])
        check_package(_WEIGHTS)

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        net, size = network.backbone, network.preprocessing.size
        config: dict[str, Any]
        if isinstance(net, VisionTransformer):
            net = vit_at_size(net, size)
            config = {"architectures": ["ViTModel"], **hf_vit.config_of(net, size)}
            tensors = hf_vit.tensors_of(net)
        else:
            assert isinstance(net, ResNet)
            config = {"architectures": ["ResNetModel"], **hf_resnet.config_of(net)}
            tensors = hf_resnet.tensors_of(net)
        return {
            _WEIGHTS: state_dict_bytes(tensors, _WEIGHTS),
            _CONFIG: _json(config),
            _PROCESSOR: _json(processor_of(network.preprocessing)),
        }

    def remarks(self, network: TrainedNetwork, settings: ExportSettings) -> list[str]:
        if network.config.model.backbone == RESNET:
            return []
        size = network.preprocessing.size
        return [
            f"Position embeddings are for images of {size} x {size} pixels. `pooler_output` is the "
            "class token behind the last layer norm: the weights of the pooling change nothing."
        ]

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return "\n".join(
            [
                "from transformers import AutoImageProcessor, AutoModel",
                f"net = AutoModel.from_pretrained({name!r})",
                f"processor = AutoImageProcessor.from_pretrained({name!r})",
                "outputs = net(**processor(images, return_tensors='pt'))",
                f"features = outputs.{_features(network)}",
            ]
        )


def processor_of(preprocessing: Preprocessing) -> dict[str, Any]:
    """Settings of an image processor of transformers: resize the shorter side, then crop.

    Bit's has these steps at every size. That of transformers' ResNet leaves the crop out from
    384 pixels on.
    """
    size = preprocessing.size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.shorter_side},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _features(network: TrainedNetwork) -> str:
    """Where in an output of transformers the features are that ``coke embed`` writes."""
    model = network.config.model
    if model.backbone == RESNET:
        return "pooler_output.flatten(1)"
    return "pooler_output" if model.pool == "class" else "last_hidden_state[:, 1:].mean(dim=1)"


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
