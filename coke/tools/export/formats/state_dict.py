"""Tensors by name: a `.pth` file of `torch.save`, or a `.safetensors` file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

_SAFETENSORS = ".safetensors"


class StateDict(Format):
    """A format whose file is the state dict of the backbone, names and shapes as they are."""

    suffixes = (".pth", ".pt", _SAFETENSORS)

    def check_name(self, out: Path) -> None:
        super().check_name(out)
        check_package(out.name)

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        return {name: state_dict_bytes(network.backbone.state_dict(), name)}


def check_package(name: str) -> None:
    """Raises ValueError if the package for files of this name is missing."""
    if name.endswith(_SAFETENSORS):
        try:
            import safetensors.torch  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"writing {name} needs safetensors: pip install 'coke[safetensors]'"
            ) from error


def state_dict_bytes(tensors: Mapping[str, Tensor], name: str) -> bytes:
    """The bytes of a file of this name: safetensors by its suffix, else of ``torch.save``."""
    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if name.endswith(_SAFETENSORS):
        from safetensors.torch import save

        # Readers of transformers ask for this entry.
        packed: bytes = save(own, metadata={"format": "pt"})
        return packed
    buffer = io.BytesIO()
    torch.save(own, buffer)
    return buffer.getvalue()


def reading(name: str) -> tuple[str, str]:
    """Python code that reads such a file: the line of import, and the expression."""
    if name.endswith(_SAFETENSORS):
        return "from safetensors.torch import load_file", f"load_file({name!r})"
    return "import torch", f"torch.load({name!r}, weights_only=True)"
