"""Weights for detectors of detectron2, as MoCo's protocol takes them."""

from __future__ import annotations

from coke.tools.export.formats.array_pickle import pickled
from coke.tools.export.formats.detectron2_names import (
    by_detectron2_names,
    detectron2_differences,
    detectron2_settings,
    left_out,
)
from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Detectron2(Format):
    """A pickle of arrays by detectron2's names, for ``MODEL.WEIGHTS``.

    detectron2 reads it with ``matching_heuristics``: it finds an array by the end of its name. So
    the same file serves the backbone alone, a C4 detector and an FPN detector.
    """

    name = "detectron2"
    suffixes = (".pkl",)  # by which detectron2 knows the format

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        differences = detectron2_differences(network.config.model)
        if differences:
            raise ValueError(
                f"the network of {network.run} is no ResNet of detectron2: "
                f"{'; '.join(differences)}. --format onnx takes any network"
            )

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        tensors = by_detectron2_names(network.backbone.state_dict())
        arrays = {key: value.detach().cpu().numpy() for key, value in tensors.items()}
        whole = {"model": arrays, "__author__": "coke", "matching_heuristics": True}
        return {name: pickled(whole)}

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        values: list[object] = []
        for key, value in {
            **_needed(network),
            "MODEL.RESNETS.NORM": "BN",
            "MODEL.RESNETS.OUT_FEATURES": ["res5"],
            "MODEL.BACKBONE.FREEZE_AT": 0,
        }.items():
            values += [key, value]
        return "\n".join(
            [
                "from detectron2.checkpoint import DetectionCheckpointer",
                "from detectron2.config import get_cfg",
                "from detectron2.modeling import build_backbone",
                "cfg = get_cfg()",
                f"cfg.merge_from_list({values!r})",
                "net = build_backbone(cfg)  # net(images)['res5'] are the last feature maps",
                f"DetectionCheckpointer(net).load({name!r})",
            ]
        )

    def remarks(self, network: TrainedNetwork, settings: ExportSettings) -> list[str]:
        lines = [f"    {key}: {value}" for key, value in _needed(network).items()]
        found = [
            "A detector's config must agree with the weights. These settings differ from "
            "detectron2's defaults:\n\n" + "\n".join(lines)
        ]
        if left_out(network.backbone.state_dict()):
            found.append(
                f"The run widens its features to {network.dim:,} behind the last stage. A detector "
                "has no such layer, so it is left out."
            )
        return found


def _needed(network: TrainedNetwork) -> dict[str, object]:
    about = network.preprocessing
    return detectron2_settings(network.config.model, about.mean, about.std)
