"""``--against``: the weights that a run is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from coke.config.config import Config
from coke.config.model import RESNET, ModelConfig
from coke.model.backbone import feature_dim
from coke.model.coke_model import CoKe, build_model
from coke.tools.evaluation.networks import hash_of_weights, load_run
from coke.tools.runs.architecture import resnet_of
from coke.tools.runs.checkpoint import load_checkpoint
from coke.tools.runs.initial_weights import load_initial_weights
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.weight_names import by_our_names, find_backbones
from coke.tools.runs.weights_file import read_weights
from coke.tools.runs.weights_report import some

_OPTION = "--against"
#: Counts batches; evaluation does not read it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Weights of ``--against``.

    Attributes:
        source: run, checkpoint or file, as it was given.
        network: its backbone.
        backbone: the same behind what turns the evaluated run's views into its own.
        dim: dimension of its features.
        weights_sha256: hash over its weights.
    """

    source: str
    network: nn.Module
    backbone: nn.Module
    dim: int
    weights_sha256: str

    @property
    def name(self) -> str:
        """Name of its row."""
        return f"against {self.source}"


def open_rival(source: str | Path, config: Config) -> Rival:
    """The network of weights to compare a run with.

    Args:
        source: a run folder (its newest epoch), a checkpoint of one, or a file of weights as
            ``coke train --init-from`` takes them. A run has the network of its own settings. A file
            has the network of the evaluated run, or another ResNet that its shapes tell.
        config: of the evaluated run. A file's images are normalised as the run's.

    Raises:
        ValueError: the source cannot be read, or it holds no backbone that can be built.
    """
    path = Path(source).expanduser()
    checkpoint = path.parent if path.name == "state.pt" else path
    run = checkpoint.parent.parent
    if (path / "config.toml").is_file():
        other, model, _ = load_run(path)
        backbone = _renormalised(model.backbone, config, other)
    elif (run / "config.toml").is_file() and (checkpoint / "state.pt").is_file():
        other = RunFolder(run).config()
        model = build_model(other.model, other.seed)
        model.load_state_dict(load_checkpoint(checkpoint)["model"])
        backbone = _renormalised(model.backbone, config, other)
    else:
        try:
            model = _from_file(path, config)
        except ValueError as error:
            # The readers of weights name the option that they were written for.
            raise ValueError(str(error).replace("--init-from", _OPTION)) from error
        backbone = model.backbone
    return Rival(
        source=str(source),
        network=model.backbone,
        backbone=backbone,
        dim=feature_dim(model.backbone),
        weights_sha256=hash_of_weights(model.backbone),
    )


def _from_file(path: Path, config: Config) -> CoKe:
    """The network that a file of weights is of. Raises ValueError naming ``--init-from``."""
    model = build_model(config.model, config.seed)
    groups = read_weights(path)
    own = {name: value.shape for name, value in model.backbone.state_dict().items()}
    places = find_backbones(groups, own)
    if places and config.model.backbone == RESNET:
        shapes = {n: tuple(v.shape) for n, v in by_our_names(groups, places[0]).items()}
        found = _resnet(config.model, shapes)
        if found is not None and found != config.model:
            model = build_model(found, config.seed)
    report = load_initial_weights(model, path)
    random = [name for name in report.missing if not name.endswith(_COUNTER)] + report.misfits
    random = [name for name in random if name.startswith("backbone.")]
    if random:
        raise ValueError(
            f"--init-from {path}: not all of its backbone could be taken: {some(random, 3)}; "
            "features of layers with random weights say nothing, so give weights of a whole "
            f"{config.model.network}"
        )
    return model


def _resnet(config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> ModelConfig | None:
    """The settings with another ResNet, which has tensors of these shapes; None if none has."""
    shape = resnet_of(shapes)
    if shape is None or not shape.settings:
        return None
    expand = shapes.get("expand.0.weight", (0,))[0]
    return replace(config, depth=shape.depth, width=shape.width, stem=shape.stem, expand=expand)


class Renormalised(nn.Module):
    """A network that takes images normalised by another mean and standard deviation."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, given: Config, own: Config) -> None:
        super().__init__()
        self.network = network
        (mean, std), (own_mean, own_std) = (
            (torch.tensor(c.data.view.mean), torch.tensor(c.data.view.std)) for c in (given, own)
        )
        self.register_buffer("scale", (std / own_std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.network(images * self.scale + self.shift)
        return features_BD


def _renormalised(network: nn.Module, given: Config, own: Config) -> nn.Module:
    """The network of a run, for views with the normalisation of another."""
    view, own_view = given.data.view, own.data.view
    if (view.mean, view.std) == (own_view.mean, own_view.std):
        return network
    return Renormalised(network, given, own)
