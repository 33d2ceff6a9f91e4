"""Formats of containers, by the name that `coke ingest --format` and the manifest use."""

from __future__ import annotations

from collections.abc import Callable

from coke.pipeline.containers.beton_container import write_beton_container
from coke.pipeline.containers.plan import ContainerPlan, WrittenContainer
from coke.pipeline.containers.tar_container import write_tar_container

CONTAINER_WRITERS: dict[str, Callable[[ContainerPlan], WrittenContainer]] = {
    "wds": write_tar_container,
    "ffcv": write_beton_container,
}
