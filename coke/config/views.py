"""What a loader's views are, from a name or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from coke.config.overrides import load_toml, with_settings
from coke.config.presets import presets
from coke.config.view_recipe import NAMED_RECIPES, ViewRecipe


def view_recipes(named: str | Path) -> tuple[ViewRecipe, ...]:
    """One recipe per view, from a name or from a TOML file of ``[[view]]`` tables.

    Names are those of :data:`coke.config.view_recipe.NAMED_RECIPES` and of the presets. A table
    sets the fields of :class:`ViewRecipe` that differ from the paper's single view, and
    ``repeat = 6`` stands for six such views.

    Raises:
        ValueError: an unknown name or key (the message lists the valid ones), a value that does not
            fit, or a file that cannot be read.
    """
    known = {name: preset.recipes_at(preset.optimizer.epochs) for name, preset in presets.items()}
    known |= NAMED_RECIPES
    if str(named) in known:
        return known[str(named)]
    path = Path(named)
    if path.suffix != ".toml" and not path.is_file():
        raise ValueError(
            f"unknown view recipe {str(named)!r}; choose one of {', '.join(known)}, "
            f"or name a TOML file of [[view]] tables"
        )
    settings = load_toml(path)
    tables = settings.pop("view", None)
    if settings:
        raise ValueError(f"{path}: unknown key {next(iter(settings))!r}; valid keys: view")
    if not isinstance(tables, list) or not tables:
        raise ValueError(f"{path} has no [[view]] table; write one for each view")
    try:
        return tuple(recipe for number, t in enumerate(tables) for recipe in _views_of(t, number))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _views_of(table: Any, number: int) -> tuple[ViewRecipe, ...]:
    if not isinstance(table, Mapping):
        raise ValueError(f"view[{number}] is {table!r}; write a [[view]] table")
    valid = [*(f.name for f in fields(ViewRecipe)), "repeat"]
    for key in table:
        if key not in valid:
            raise ValueError(
                f"unknown key {key!r} in view[{number}]; valid keys: {', '.join(valid)}"
            )
    repeat = table.get("repeat", 1)
    if type(repeat) is not int or repeat < 1:
        raise ValueError(f"view[{number}].repeat is {repeat!r}; it is a number of views")
    recipe = {key: value for key, value in table.items() if key != "repeat"}
    return (with_settings(ViewRecipe(), recipe, f"view[{number}]."),) * repeat
