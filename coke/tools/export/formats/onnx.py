"""ONNX, with the pre-processing in the metadata."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from coke.files.byte_size import show_bytes
from coke.tools.export.formats.format import Format
from coke.tools.export.formats.graph import IMAGES, about, output_name, quiet, recording, remarks
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

_LARGEST = 2**31  # bytes of a protobuf message, which an .onnx file is
_EXPORTER = "torch.onnx._internal.exporter"  # tells which packages it does without


class Onnx(Format):
    """A model of ONNX in one file, made by torch's exporter."""

    name = "onnx"
    suffixes = (".onnx",)
    is_graph = True

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"--format onnx needs {error.name}: pip install 'coke[onnx]'"
            ) from error
        size = sum(v.numel() * v.element_size() for v in network.backbone.state_dict().values())
        if size >= _LARGEST:
            raise ValueError(
                f"{network.run} has {show_bytes(size)} of weights, and an .onnx file holds less "
                f"than {show_bytes(_LARGEST)}; use --format pt2"
            )

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        given = recording(network, settings)
        with quiet(), _silent():
            program = torch.onnx.export(
                given.net,
                (given.images,),
                dynamo=True,
                dynamic_shapes=(given.sizes,),
                input_names=[IMAGES],
                output_names=[output_name(network)],
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        _forget_the_code(model.graph)
        for key, value in about(network, settings).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        data: bytes = model.SerializeToString()
        return {name: data}

    def remarks(self, network: TrainedNetwork, settings: ExportSettings) -> list[str]:
        return remarks(network, settings)

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return "\n".join(
            [
                "import onnxruntime",
                f"net = onnxruntime.InferenceSession({name!r})",
                f"({output_name(network)},) = net.run(None, {{{IMAGES!r}: images}})",
            ]
        )


def _forget_the_code(graph: Any) -> None:
    """Removes where each part came from: paths of this machine, and many bytes."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


@contextmanager
def _silent() -> Iterator[None]:
    """Hides what the exporter says about packages that are missing and not needed."""
    logger = logging.getLogger(_EXPORTER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
