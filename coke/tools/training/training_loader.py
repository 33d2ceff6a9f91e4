"""The loader of a training run, from its settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.distributed.process_group import rank, ranks_of_this_machine, world_size
from coke.distributed.workers import default_workers
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Loader, build_loader


def training_loader(
    config: Config, index: ImageIndex, recipes: Sequence[ViewRecipe], device: torch.device
) -> Loader:
    """Batches of the views ``recipes`` for this rank, in the order of ``config``."""
    return build_loader(
        index,
        recipes,
        batch_size=config.data.batch_size,
        seed=config.seed,
        order=config.data.order,
        window=config.data.window,
        cache_gb=config.machine.cache_gb,
        drop_ragged=config.data.drop_ragged,
        world=world_size(),
        rank=rank(),
        device=str(device),
        threads=config.machine.threads or max(1, default_workers() // ranks_of_this_machine()),
        backend=config.data.loader,
    )
