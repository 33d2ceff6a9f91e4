"""What ``coke embed`` says about the features that it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.networks import hash_of_weights
from coke.tools.features.embed import FORMAT

ABOUT = "embed.json"


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """``embed.json`` of a folder of features.

    Attributes:
        data, identity: place and identity of the data set.
        ids_sha256: hash of the ids of a subset; None for all images.
        layer: ``"backbone"`` or ``"projector"``; None for raw pixels.
        classes: names of the data set's classes.
    """

    folder: Path
    data: str
    identity: str
    ids_sha256: str | None
    run: str
    epoch: int | None
    layer: str | None
    weights_sha256: str | None
    classes: Sequence[str]

    def check_data(self, index: ImageIndex) -> None:
        """Raises ValueError if the features are of another data set."""
        if self.identity != index.identity:
            raise ValueError(
                f"features in {self.folder} are of {self.data} (keys {self.identity[:12]}), and "
                f"{index.location} is another data set (keys {index.identity[:12]}): give the "
                "data set that they were made of, or embed this one"
            )
        if self.ids_sha256 != index.subset_sha256:
            raise ValueError(
                f"features in {self.folder} are of {_part(self.ids_sha256)} of {index.location}, "
                f"and {_part(index.subset_sha256)} are needed: embed those"
            )

    def check_weights(self, network_of: Callable[[str], nn.Module | None], epoch: int) -> None:
        """Raises ValueError if the features are not of these weights.

        Args:
            network_of: the network that gives a layer's features.
            epoch: of its weights, for the message.
        """
        network = None if self.layer is None else network_of(self.layer)
        if network is None or hash_of_weights(network) != self.weights_sha256:
            made = f"{self.run}, epoch {self.epoch}" if self.epoch is not None else self.run
            raise ValueError(
                f"features in {self.folder} are of {made}, and not of the weights of this run's "
                f"epoch {epoch}: choose another --epoch, or embed again"
            )


def read_embedding(folder: Path) -> Embedding:
    """What a folder of ``coke embed`` says.

    Raises:
        ValueError: it is no such folder.
    """
    about = folder / ABOUT
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
        return Embedding(
            folder=folder,
            data=found["data"],
            identity=found["identity"],
            ids_sha256=found.get("ids_sha256"),
            run=found["run"],
            epoch=found["epoch"],
            layer=found["layer"],
            weights_sha256=found["weights_sha256"],
            classes=found["classes"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{folder} is no folder of features that `coke embed` wrote ({about}: {reason})"
        ) from error


def _part(ids_sha256: str | None) -> str:
    return "all images" if ids_sha256 is None else f"the ids of hash {ids_sha256[:12]}"
