"""The section of a run's settings: those that differ from its preset, then all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from coke.config.config import Config
from coke.config.presets import presets
from coke.tools.page.content import Section, Table


def settings_section(config: Config) -> Section:
    """All settings, by ``section.key``."""
    own = dict(_flat(config))
    preset = presets.get(config.preset)
    everything = Table(
        header=("setting", "value"),
        rows=[(key, _text(value)) for key, value in own.items()],
        texts=2,
        folded=f"All {len(own)} settings",
    )
    if preset is None:
        note = f"The run's preset is {config.preset}, which this coke does not know."
        if config.preset == "custom":
            note = "The run's settings come from no preset."
        return Section(title="Settings", note=note, tables=[everything])
    theirs = dict(_flat(preset))
    changed = [
        (key, _text(value), _text(theirs[key]))
        for key, value in own.items()
        if key in theirs and value != theirs[key]
    ]
    if not changed:
        line = f"The settings are those of the preset {config.preset}."
        return Section(title="Settings", lines=[line], tables=[everything])
    table = Table(
        header=("setting that differs from the preset", "this run", config.preset),
        rows=changed,
        texts=3,
    )
    return Section(title="Settings", tables=[table, everything])


def _flat(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _flat(value, f"{where}{f.name}.")
        else:
            yield f"{where}{f.name}", value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "(empty)" if value == "" else str(value)
