"""The networks that an evaluation compares: random weights, those of ``--against``, the run's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from coke.config.config import Config
from coke.model.backbone import feature_dim
from coke.model.coke_model import CoKe, build_model
from coke.tools.evaluation.against import Rival

#: Names of rows.
RANDOM, PIXELS, TRAINED = "random initialisation", "raw pixels", "CoKe"
#: Representations that the trained one is compared with.
BASELINES = (RANDOM, PIXELS)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A network of an evaluation's table, to fine-tune or to take features of.

    Attributes:
        name: of its row.
        make_backbone: gives a network of its own at every call, on the CPU: views (B, 3, S, S),
            normalised as the evaluated run's, -> features (B, dim).
        dim: dimension of its features.
        trained: whether its weights were trained. Random ones have no batch-norm statistics yet:
            see :func:`coke.tools.evaluation.representations.calibrate`.
    """

    name: str
    make_backbone: Callable[[], nn.Module]
    dim: int
    trained: bool


def contestants(
    config: Config, model: CoKe, *, baselines: bool, rivals: Sequence[Rival] = ()
) -> list[Contestant]:
    """The networks of a table, in the order of its rows. Raw pixels have none.

    Args:
        config, model: of the evaluated run.
        baselines: also the network of the run with random weights, those of its seed.
        rivals: also the networks of these weights.
    """
    dim = feature_dim(model.backbone)
    found = []
    if baselines:
        found.append(
            Contestant(
                name=RANDOM,
                make_backbone=lambda: build_model(config.model, config.seed).backbone,
                dim=dim,
                trained=False,
            )
        )
    found += [
        Contestant(name=r.name, make_backbone=_copier(r.backbone), dim=r.dim, trained=True)
        for r in rivals
    ]
    trained = _copier(model.backbone)
    return [*found, Contestant(name=TRAINED, make_backbone=trained, dim=dim, trained=True)]


def _copier(network: nn.Module) -> Callable[[], nn.Module]:
    return lambda: copy.deepcopy(network).cpu()
