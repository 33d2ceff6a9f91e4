"""``model.pt`` of a fine-tuned classifier: network, head, classes and pre-processing in one file.

``coke eval finetune`` writes it to ``RUN/finetune/IDENTITY/model.pt``. An export reads it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coke.config.model import ModelConfig
from coke.config.overrides import with_settings
from coke.config.view_recipe import ViewRecipe
from coke.files import durable
from coke.model.coke_model import build_model

FORMAT_VERSION = 1
FOLDER, MODEL = "finetune", "model.pt"


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tuned classifier: scores (B, C) = backbone(images) @ head_weight.T + head_bias.

    Attributes:
        model: the network; its backbone alone is used.
        backbone: state dict of the backbone, names and shapes as in a run's checkpoint without
            the prefix ``backbone.``.
        head_weight, head_bias: (C, D) and (C,) float32.
        classes: name of each class, by label.
        view: what makes an image a view: side, center crop, mean and standard deviation.
        about: run, epoch, data sets, settings, and accuracy on the test images; plain values.
    """

    model: ModelConfig
    backbone: Mapping[str, Tensor]
    head_weight: Tensor
    head_bias: Tensor
    classes: tuple[str, ...]
    view: ViewRecipe
    about: Mapping[str, Any]

    def network(self) -> nn.Sequential:
        """Images (B, 3, S, S), made by ``view``, -> class scores (B, C); in evaluation mode."""
        backbone = build_model(self.model, 0).backbone
        backbone.load_state_dict(dict(self.backbone))
        head = nn.Linear(self.head_weight.shape[1], self.head_weight.shape[0])
        head.load_state_dict({"weight": self.head_weight, "bias": self.head_bias})
        return nn.Sequential(backbone, head).eval()


def classifiers_of(run: Path) -> list[Path]:
    """The files of a run's fine-tuned classifiers, the newest last."""
    return sorted((run / FOLDER).glob(f"*/{MODEL}"), key=lambda path: path.stat().st_mtime)


def write_classifier(path: Path, found: FineTuned) -> None:
    """Writes the file whole, or leaves what was there."""
    state = {
        "format_version": FORMAT_VERSION,
        "model": asdict(found.model),
        "backbone": {name: value.detach().cpu() for name, value in found.backbone.items()},
        "head_weight": found.head_weight.detach().cpu(),
        "head_bias": found.head_bias.detach().cpu(),
        "classes": list(found.classes),
        "view": asdict(found.view),
        "about": dict(found.about),
    }
    with durable.draft_of(path) as draft:
        torch.save(state, draft)


def read_classifier(path: str | Path) -> FineTuned:
    """Reads a file of :func:`write_classifier` onto the CPU. No code of the file is run.

    Raises:
        ValueError: there is no such file, it is damaged, or of another format version.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no {path}; `coke eval finetune RUN DATA` makes it") from None
    except Exception as error:  # torch raises half a dozen unrelated types here
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); delete it, and `coke eval finetune` "
            "makes it again"
        ) from error
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION or "head_weight" not in state:
        raise ValueError(
            f"{path} is no fine-tuned classifier of format version {FORMAT_VERSION}; `coke eval "
            "finetune RUN DATA` makes one"
        )
    return FineTuned(
        model=with_settings(ModelConfig(), state["model"], "model."),
        backbone=state["backbone"],
        head_weight=state["head_weight"],
        head_bias=state["head_bias"],
        classes=tuple(state["classes"]),
        view=with_settings(ViewRecipe(), state["view"], "view."),
        about=state["about"],
    )
