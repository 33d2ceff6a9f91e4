"""docs/recipes.md says what can be typed: every command in it is given to the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coke.cli import app
from coke.config.config import Config
from coke.config.presets import preset_named, presets

TEXT = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {m.strip() for m in re.findall(r"`(--preset [^`]+)`", TEXT)}
    | {m.strip() for m in re.findall(r"^coke train DATA (.+)$", TEXT, re.MULTILINE)}
)


def typed(command: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The settings that ``coke train DATA`` with these options would train with."""
    given: list[Config] = []

    def record(config: Config, *_: Any, **__: Any) -> None:
        given.append(config)

    monkeypatch.setattr("coke.tools.training.train.train", record)
    result = CliRunner().invoke(app, ["train", "DATA", *shlex.split(command)])
    assert result.exception is None, f"{command}: {result.exception}"
    (config,) = given
    return config


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_accepted_and_changes_something(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    preset = preset_named(words[words.index("--preset") + 1])
    assert (typed(command, monkeypatch) == preset) == (len(words) == 2)


def test_the_page_names_every_preset_and_its_settings() -> None:
    found = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert sorted(name for name, _ in found) == sorted(presets)
    for name, row in found:
        cells = [cell.strip() for cell in row.split("|")]
        config = presets[name]
        assert cells[1].startswith(str(config.data.views))
        assert cells[2] == f"{config.optimizer.epochs:,}"
        assert cells[3] == str(config.loss.temperature)
        assert cells[4] == f"{config.model.projector_layers} layers"
        assert (cells[5] == "–") == (config.model.predictor_hidden == 0)
        assert cells[5].endswith(f"beta {config.loss.beta:g}") or config.model.predictor_hidden == 0
        stage = config.clustering.first_stage_epochs
        assert cells[7] == (f"from epoch {stage}" if stage <= config.optimizer.epochs else "–")


def test_what_to_expect_is_what_the_presets_say() -> None:
    """A row for each preset; its figures stand in the comment above the preset."""
    code = (Path(__file__).parents[1] / "coke" / "config" / "presets.py").read_text(
        encoding="utf-8"
    )
    said = dict(
        re.findall(r"^# ((?:coke train|make) [^\n]+)\n((?:#[^\n]*\n)+)_", code, re.MULTILINE)
    )
    rows = dict(re.findall(r"^\| `((?:coke train|make) [^`]+)` \| (.+) \|$", TEXT, re.MULTILINE))
    assert sorted(rows) == sorted(said) and len(rows) == len(presets)
    for command, row in rows.items():
        found = re.findall(r"\d+[.:]\d+", row)
        assert set(found) <= set(re.findall(r"\d+[.:]\d+", said[command])), command


def test_every_ablation_table_has_its_rows() -> None:
    section = TEXT[TEXT.index("## Ablations") :]
    tables = set(re.findall(r"^\| (\d+)", section, re.MULTILINE))
    assert tables >= {"1", "2", "3", "4", "5", "7", "9", "10", "11", "12", "13"}


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("0 (no constraint)", "clustering.min_ratio", 0.0),
        ("2 + 3 thousand", "clustering.n_clusters", (2000, 3000)),
        ("160", "clustering.first_stage_epochs", 161),
        ("256", "data.batch_size", 256),
    ],
)
def test_a_row_sets_what_it_says(
    setting: str, key: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(rf"^\|[^|]*\| {re.escape(setting)} \|[^|]*\| `(.+)` \|$", TEXT, re.M)
    found: Any = typed(command, monkeypatch)
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
