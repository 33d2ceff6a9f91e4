"""The settings of a run, from everything that may give them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coke.config.config import Config
    from coke.config.wishes import Wishes


def resolve_config(
    preset: str | None,
    file: Path | None,
    assignments: list[str] | None,
    given: dict[str, Any],
    saved: Config | None = None,
    hours: float | None = None,
) -> Config | Wishes:
    """Settings in rising order of precedence: preset (or saved run), file, --set, options.

    Args:
        given: options of the command line, in sections; None for an option that was not given.
        hours: time for a run whose other settings are chosen; None for no limit.

    Returns: wishes, where the preset is ``auto`` or none was named, and there is no saved run.
    """
    from coke.config.overrides import layered, load_toml, parse_assignments, with_settings
    from coke.config.presets import preset_named
    from coke.config.wishes import AUTO, Wishes

    layers: list[dict[str, Any]] = [{} if file is None else load_toml(file)]
    layers.append(parse_assignments(assignments or []))
    in_layers = [layer.pop("preset", None) for layer in layers]
    layers.append(_without_none(given))
    named = preset or in_layers[1] or in_layers[0]
    settings = layered(layers)
    if named in (None, AUTO) and saved is None:
        return Wishes(settings=settings, hours=hours)
    if hours is not None:
        raise ValueError(
            f"--hours {hours:g} chooses the epochs of a new run with --preset {AUTO}; here they "
            "are set: use --epochs"
        )
    config = saved if named in (None, AUTO) and saved is not None else preset_named(named)
    return with_settings(config, settings)  # at once: one may need what another sets


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    kept = {k: _without_none(v) if isinstance(v, dict) else v for k, v in given.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
