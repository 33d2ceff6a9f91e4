"""The lines of Python on a model card, run as a reader runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def code_of(card: Path) -> str:
    """The card's first block of Python."""
    return card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def loaded(code: str, **given: Any) -> dict[str, Any]:
    """The names that lines define, with these names before them."""
    exec(code, given)
    return given
