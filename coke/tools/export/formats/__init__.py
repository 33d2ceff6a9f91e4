"""The formats of `coke export`, one file each."""

from __future__ import annotations

from coke.tools.export.formats.detectron2 import Detectron2
from coke.tools.export.formats.format import Format
from coke.tools.export.formats.hf import HuggingFace
from coke.tools.export.formats.onnx import Onnx
from coke.tools.export.formats.pt2 import Pt2
from coke.tools.export.formats.timm import Timm
from coke.tools.export.formats.torchvision import Torchvision

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (Torchvision(), Timm(), HuggingFace(), Onnx(), Pt2(), Detectron2())
}


def format_named(name: str) -> Format:
    """The format of a ``--format``.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in FORMATS:
        raise ValueError(f"--format is {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
