"""The model card: each figure is of these weights, or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.figures import Figure, Row, accuracy_row
from coke.tools.evaluation.networks import hash_of_weights
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.results import keep_result
from coke.tools.export.card import model_card
from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork, open_network
from tests.support.eval_report import REPORT
from tests.support.saved_run import saved_run
from tests.support.tiny_config import tiny_config


class Plain(Format):
    """A format that says the least."""

    name: ClassVar[str] = "plain"
    suffixes: ClassVar[tuple[str, ...]] = (".bin",)

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        """It takes all."""

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        return {name: b""}

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return f"net = load({name!r})"


def card(network: TrainedNetwork, name: str = "net.bin") -> str:
    return model_card(network, Plain(), ExportSettings(format="plain"), name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return saved_run(tmp_path / "run", tiny_config(), epochs=2)


def test_a_run_without_records_has_a_card_without_figures(run: Path) -> None:
    text = card(open_network(run))
    assert text.splitlines()[:3:2] == [
        "# `net.bin`",
        "Exported by `coke export` 0.1.0 from a run of CoKe (Unsupervised Visual Representation "
        "Learning by Online Constrained K-Means, CVPR 2022): `ResNet-10, width 8`, 64 features for "
        "an image, format `plain`.",
    ]
    assert "- Run: `run`\n- Epoch: 2 of 3\n- SHA-256" in text  # no data.json, so no data
    assert "No evaluation of these weights is recorded." in text
    assert "1. Cut the square out of the image's center whose side is 100 % of the shorter side, "
    assert "resize it to 16 x 16 pixels (bilinear, with antialiasing).\n" in text
    assert (
        "3. Subtract the mean 0.4914, 0.4822, 0.4465, then divide by the standard deviation 0.247, "
        "0.2435, 0.2616." in text
    )
    assert "```python\nnet = load('net.bin')\n```" in text
    assert "## Licence\n\nThe weights are yours." in text


def test_data_and_initial_weights_are_named_without_the_folders_above(run: Path) -> None:
    data = {"folder": "/home/me/sets/birds", "count": 12345, "identity": "65d4"}
    (run / "data.json").write_text(json.dumps(data), encoding="utf-8")
    (run / "initial_weights.json").write_text('{"source": "/x/moco.pth"}', encoding="utf-8")
    text = card(open_network(run))
    assert "- Data: `birds`, 12,345 images\n" in text
    assert "a hash of keys and images: `65d4`\n" in text
    assert "- Initial weights: `moco.pth`. Their licence may bind these weights.\n" in text
    assert "/home" not in text and "/x/" not in text


def test_a_file_that_cannot_be_read_is_named(run: Path) -> None:
    network = open_network(run)
    (run / "data.json").write_text('{"folder":', encoding="utf-8")
    with pytest.raises(ValueError, match=r"data\.json cannot be read .* mend the file, or move"):
        card(network)


def test_the_recipe_is_what_differs_from_the_preset(tmp_path: Path) -> None:
    config = tiny_config().changed(preset="demo", machine={"cache_dir": "/home/me"})
    text = card(open_network(saved_run(tmp_path / "demo", config)))
    assert "Settings: preset `demo`, with these changes.\n\n| setting | preset | this run |" in text
    assert "| `optimizer.epochs` | `7` | `3` |\n" in text
    assert "| `clustering.n_clusters` | `[500, 1000]` | `[3, 5]` |\n" in text
    assert "machine" not in text and "/home" not in text
    custom = card(open_network(saved_run(tmp_path / "custom", config.changed(preset="custom"))))
    assert "Settings: the defaults, with these changes.\n\n| setting | default | this" in custom
    assert "| `optimizer.epochs` | `200` | `3` |\n" in custom


@pytest.fixture
def result(run: Path) -> EvalReport:
    """A result of the run's weights."""
    weights = hash_of_weights(open_network(run).backbone)
    rows = {
        "raw pixels": accuracy_row(Accuracy(top1=20.0, top5=None), 10),
        "CoKe": accuracy_row([Accuracy(top1=t, top5=t + 30) for t in (50.0, 60.0)], 10),
    }
    return replace(REPORT, epoch=2, weights_sha256=weights, rows=rows)


def test_evaluations_are_those_of_these_weights(run: Path, result: EvalReport) -> None:
    keep_result(result, run)
    keep_result(replace(result, epoch=1, method="of another epoch"), run)
    keep_result(replace(result, weights_sha256="33", method="of other weights"), run)
    text = card(open_network(run))
    start = text.index("### knn")
    # Wilson's intervals by hand: 2 of 10, and 5.5 of 10. The deviation of 50 and 60 is 10 / √2.
    assert text[start : text.index("## Pre-processing")] == (
        "### knn\n\nTest: 10 images of `val` (identity `11`). Labels learned from: 10 images of "
        "`train`. Settings: `k 20`.\n\n"
        "| features | top-1 % | top-5 % |\n| --- | ---: | ---: |\n"
        "| `raw pixels` | 20.00 (5.67 to 50.98) | - |\n"
        "| `CoKe` | 55.00 ± 7.07 (27.37 to 79.86) | 85.00 ± 7.07 |\n\n"
        "In parentheses: 95 % confidence interval, from the number of test images.\n\n"
        "Behind ±: standard deviation over 2 seeds.\n\n"
        "The test images are the training images.\n\n"
    )
    assert "of another epoch" not in text and "of other weights" not in text


def test_what_weakens_a_figure_is_said(run: Path, result: EvalReport) -> None:
    apart = replace(result.data, train=replace(result.data.train, identity="44"))
    report = replace(result, data=apart, untrained_classes={"a": 2, "b": 1})
    keep_result(report, run)
    text = card(open_network(run))
    assert "3 test images are of classes without a training image; they are errors." in text
    assert "also training images" not in text
    keep_result(replace(report, repeated_images=3), run)  # the same result, counted again
    assert "3 test images are also training images." in card(open_network(run))


def test_other_metrics_and_chosen_settings_have_columns(run: Path, result: EvalReport) -> None:
    rows = {
        "random initialisation": Row(figures={"nmi": Figure(value=0.0712)}),
        "CoKe": Row(figures={"clusters": Figure(value=1000)}, chosen={"lr": 0.1}),
    }
    keep_result(replace(result, rows=rows), run)
    assert (
        "| features | clusters | NMI | `lr` |\n| --- | ---: | ---: | ---: |\n"
        "| `random initialisation` | - | 0.071 | - |\n| `CoKe` | 1,000 | - | `0.1` |\n"
    ) in card(open_network(run))


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    folder = saved_run(tmp_path / "<script>`x` | *b*", tiny_config(), epochs=0)
    text = card(open_network(folder), "a`\n# title\n```.bin")
    assert text.startswith(r"# ````a`\n# title\n```.bin````" + "\n\nExported")
    assert "- Run: ``<script>`x` | *b*``\n" in text
    assert "- Epoch: 0 of 3, the initialisation scan, which moves no weight\n" in text
    assert "````python\nnet = load('a`\\n# title\\n```.bin')\n````" in text
