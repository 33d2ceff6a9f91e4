"""A run folder of given records, which nothing was trained for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coke.config.config import Config
from coke.config.overrides import to_toml


def head(k: int, images: int, **changes: Any) -> dict[str, Any]:
    """A head's part of a record: equal sizes, unless changed."""
    size = images // k
    plain = {"smallest": size, "largest": size, "empty": 0, "violation": 0.0, "churn": 0.5}
    return {"n_clusters": k, **plain, **changes}


def record(epoch: int, heads: list[dict[str, Any]], images: int, **changes: Any) -> dict[str, Any]:
    """A line of ``metrics.jsonl`` of a run that goes well, unless changed."""
    loss = None if epoch == 0 else 3.0 - 0.1 * epoch
    return {
        "epoch": epoch,
        "loss": loss,
        "loss_over_chance": None if loss is None else loss / 4,
        "lr": 0.1,
        "images_per_second": 500.0,
        "data_wait": 0.05,
        "seconds": images / 500,
        "heads": heads,
        "left_out": 0,
        "peak_memory": 2**30,
        "skipped_steps": 0,
        "probe": None,
        **changes,
    }


def made_run(folder: Path, config: Config, records: list[dict[str, Any]], images: int) -> Path:
    """A run folder without checkpoints."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    data = {"folder": "/data/of/the/run", "count": images, "identity": "0"}
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    lines = "".join(json.dumps(line) + "\n" for line in records)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder
