"""A program of `torch.export`, which torch runs without our code."""

from __future__ import annotations

import io

import torch
from torch.export import Dim

from coke.tools.export.formats.format import Format
from coke.tools.export.formats.graph import about, output_name, quiet, recording, remarks
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Pt2(Format):
    """A program of `torch.export`. It takes the place of TorchScript, which torch deprecates."""

    name = "pt2"
    suffixes = (".pt2",)
    is_graph = True

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        pass

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        given = recording(network, settings)
        sizes = dict.fromkeys(given.sizes, Dim.DYNAMIC)
        buffer = io.BytesIO()
        with quiet():
            program = torch.export.export(given.net, (given.images,), dynamic_shapes=(sizes,))
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
            torch.export.save(program, buffer, extra_files=about(network, settings))
        return {name: buffer.getvalue()}

    def remarks(self, network: TrainedNetwork, settings: ExportSettings) -> list[str]:
        return remarks(network, settings)

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return "\n".join(
            [
                "import torch",
                f"net = torch.export.load({name!r}).module()",
                f"{output_name(network)} = net(images)",
            ]
        )
