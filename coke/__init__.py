"""coke: unsupervised visual representation learning by online constrained k-means.

The names below are the public API. They are imported on first use, so that ``import coke`` and
``coke --help`` do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coke.version import __version__

if TYPE_CHECKING:
    from coke.clustering import Clustering, LabelStore
    from coke.clustering.estimator import OnlineConstrainedKMeans
    from coke.config.config import Config
    from coke.config.presets import presets
    from coke.model.coke_model import CoKe
    from coke.model.loss import coke_loss
    from coke.pipeline.dataset.index import ImageIndex
    from coke.pipeline.loading.loader import build_loader
    from coke.tools.training.train import train

_HOMES = {
    "Clustering": "coke.clustering",
    "CoKe": "coke.model.coke_model",
    "Config": "coke.config.config",
    "ImageIndex": "coke.pipeline.dataset.index",
    "LabelStore": "coke.clustering",
    "OnlineConstrainedKMeans": "coke.clustering.estimator",
    "build_loader": "coke.pipeline.loading.loader",
    "coke_loss": "coke.model.loss",
    "presets": "coke.config.presets",
    "train": "coke.tools.training.train",
}

__all__ = [
    "Clustering",
    "CoKe",
    "Config",
    "ImageIndex",
    "LabelStore",
    "OnlineConstrainedKMeans",
    "__version__",
    "build_loader",
    "coke_loss",
    "presets",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coke' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
