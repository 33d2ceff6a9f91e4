"""A folder that ``AutoModel`` and ``AutoImageProcessor`` of transformers load."""

from __future__ import annotations

import json
from typing import Any

from coke.config.model import RESNET
from coke.model.resnet import ResNet
from coke.tools.export.formats import hf_resnet
from coke.tools.export.formats.format import Format
from coke.tools.export.formats.resnet_names import refuse
from coke.tools.export.formats.state_dict import check_package, state_dict_bytes
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_BILINEAR = 2  # PIL's number, which transformers uses


class HuggingFace(Format):
    """``ResNetModel`` of transformers, by its settings and its names."""

    name = "hf"
    files = frozenset((_WEIGHTS, _CONFIG, _PROCESSOR))

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        model = network.config.model
        if model.backbone == RESNET:
            refuse(network, "transformers", hf_resnet.differences(model))
        else:
            refuse(network, "transformers", [f"it is a {model.network}"])
        check_package(_WEIGHTS)

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        backbone = network.backbone
        assert isinstance(backbone, ResNet)
        config = {"architectures": ["ResNetModel"], **hf_resnet.config_of(backbone)}
        return {
            _WEIGHTS: state_dict_bytes(hf_resnet.tensors_of(backbone), _WEIGHTS),
            _CONFIG: _json(config),
            _PROCESSOR: _json(processor_of(network.preprocessing)),
        }

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return "\n".join(
            [
                "from transformers import AutoImageProcessor, AutoModel",
                f"net = AutoModel.from_pretrained({name!r})",
                f"processor = AutoImageProcessor.from_pretrained({name!r})",
                "features = net(**processor(images, return_tensors='pt')).pooler_output.flatten(1)",
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


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
