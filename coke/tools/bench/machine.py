"""What a benchmark ran on, and with which settings: the caption of its figures."""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex


def described(
    config: Config,
    index: ImageIndex,
    device: torch.device,
    precision: str,
    cores: int,
) -> dict[str, Any]:
    """Names and values, in the order they are shown."""
    return {
        "date": str(date.today()),
        "device": device_name(device),
        "cores": cores,
        "torch threads": torch.get_num_threads(),
        "loader threads": config.machine.threads or cores,
        "preset": config.preset,
        "backbone": config.model.network,
        "views": config.data.views,
        "size": config.data.view.size,
        "batch size": config.data.batch_size,
        "precision": precision,
        "accumulate": config.optimizer.accumulate,
        "channels last": config.machine.channels_last,
        "compile": config.machine.compile,
        "checkpoint activations": config.machine.checkpoint_activations,
        "clusters": list(config.clustering.n_clusters),
        "dual rule": config.clustering.dual_rule,
        "loader": config.data.loader,
        "data": f"{index.folder.name}: {index.n_live:,} images",
        "torch": torch.__version__,
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or that of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((ln.partition(":")[2].strip() for ln in lines if "model name" in ln), "")
    except OSError:
        model = ""
    return f"CPU ({model or platform.processor() or platform.machine()})"
