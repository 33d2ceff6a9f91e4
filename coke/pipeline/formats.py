"""Formats of containers, by the name that `coke ingest` and the manifest use."""

from __future__ import annotations

from collections.abc import Callable

from coke.pipeline.containers import ContainerPlan, WrittenContainer, write_container

CONTAINER_WRITERS: dict[str, Callable[[ContainerPlan], WrittenContainer]] = {
    "wds": write_container,
}
