"""Tensors by name as the bytes of a `.pth` or a `.safetensors` file."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from torch import Tensor

SAFETENSORS = ".safetensors"
#: Suffixes of files that hold tensors by name.
SUFFIXES = (".pth", ".pt", SAFETENSORS)


def check_suffix(name: str) -> None:
    """Raises ValueError if the package for files of this name is missing."""
    if name.endswith(SAFETENSORS):
        try:
            import safetensors.torch  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"writing {name} needs safetensors: pip install 'coke[safetensors]'; or give a "
                "name that ends in .pth"
            ) from error


def state_dict_bytes(tensors: Mapping[str, Tensor], name: str) -> bytes:
    """The tensors in the format of the name's suffix; ``torch.save`` writes all but safetensors."""
    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if name.endswith(SAFETENSORS):
        from safetensors.torch import save

        # Readers of transformers ask for this entry.
        packed: bytes = save(own, metadata={"format": "pt"})
        return packed
    buffer = io.BytesIO()
    torch.save(own, buffer)
    return buffer.getvalue()


def loading(name: str) -> tuple[str, str]:
    """The line that imports a reader, and the expression that reads the file."""
    if name.endswith(SAFETENSORS):
        return "from safetensors.torch import load_file", f"load_file({name!r})"
    return "import torch", f"torch.load({name!r}, weights_only=True)"
