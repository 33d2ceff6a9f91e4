"""Reads the metrics that a run has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(run: Path) -> list[dict[str, Any]]:
    """One record per epoch, oldest first."""
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
