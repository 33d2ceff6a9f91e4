"""The model card beside an exported file: what the weights are, and how to use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from coke.config.config import MAY_DIFFER_ON_RESUME, Config
from coke.config.overrides import changed_settings
from coke.config.presets import presets
from coke.pipeline.sources.keys import from_system
from coke.tools.evaluation.networks import hash_of_weights
from coke.tools.export.card_results import results_section
from coke.tools.export.formats.format import Format
from coke.tools.export.markdown import code, code_block, last_part, table
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork
from coke.tools.runs.run_folder import INITIAL_WEIGHTS
from coke.version import __version__

#: Text by which a later export knows a card as its own.
MARKER = "Exported by `coke export`"

_LICENCE = (
    "The weights are yours. coke claims no right in them and gives no licence for them. State your "
    "own here, and the licence of the data, which may bind the weights."
)


def model_card(network: TrainedNetwork, form: Format, settings: ExportSettings, name: str) -> str:
    """The card in Markdown; it has :data:`MARKER` in it.

    A figure that the run does not have is left out. Folders are named without those above them.

    Args:
        name: name of the exported file or folder.

    Raises:
        ValueError: a file of the run that says where its weights come from cannot be read.
    """
    weights = hash_of_weights(network.backbone)
    loading = code_block(form.loading(network, settings, name), "python")
    sections = [
        f"# {code(name)}",
        f"{MARKER} {__version__} from a run of CoKe (Unsupervised Visual Representation Learning "
        f"by Online Constrained K-Means, CVPR 2022): {code(network.config.model.network)}, "
        f"{_gives(network)}, format {code(form.name)}.",
        "## Training",
        "\n".join(_training(network, weights)),
        *_recipe(network.config),
        "## Evaluation",
        *(
            _tuned(network)
            if network.head
            else results_section(network.run, network.epoch, weights)
        ),
        "## Pre-processing",
        _preprocessing(network),
        "## Loading",
        loading,
        *form.remarks(network, settings),
        "## Licence",
        _LICENCE,
    ]
    return "\n\n".join(sections) + "\n"


def _gives(network: TrainedNetwork) -> str:
    if network.head is None:
        return f"{network.dim:,} features for an image"
    return f"fine-tuned, a score for each of {len(network.classes):,} classes"


def _tuned(network: TrainedNetwork) -> Iterator[str]:
    """The accuracy that is recorded with a classifier, and the order of its classes."""
    about = network.tuning
    test, train = (last_part(about["data"][part]["location"]) for part in ("test", "train"))
    shares = {"top-1": about["top1"], "top-5": about["top5"]}
    said = ", ".join(f"{name} {value:.2f} %" for name, value in shares.items() if value is not None)
    yield (
        f"Fine-tuned with the labels of {code(train)}. On {about['test_images']:,} images of "
        f"{code(test)}: {said}."
    )
    yield "Classes, in the order of the scores: " + ", ".join(map(code, network.classes)) + "."


def _training(network: TrainedNetwork, weights: str) -> Iterator[str]:
    epochs = network.config.optimizer.epochs
    scan = ", the initialisation scan, which moves no weight" if network.epoch == 0 else ""
    yield f"- Run: {code(from_system(network.run.resolve().name))}"
    yield f"- Epoch: {network.epoch:,} of {epochs:,}{scan}"
    if data := _record(network, "data.json"):
        images = f"{data['count']:,} images"
        if chosen := data.get("ids"):
            images = (
                f"{chosen['images']:,} of {images}, chosen by id (hash {chosen['sha256'][:12]})"
            )
        yield f"- Data: {code(last_part(data['folder']))}, {images}"
        yield f"- Identity of the data, a hash of keys and images: {code(data['identity'])}"
    if initial := _record(network, INITIAL_WEIGHTS):
        source = code(last_part(initial["source"]))
        yield f"- Initial weights: {source}. Their licence may bind these weights."
    yield f"- SHA-256 of the backbone's weights: {code(weights)}"


def _record(network: TrainedNetwork, name: str) -> dict[str, Any] | None:
    path = network.run / name
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); the model card names what is in it: mend the file, "
            "or move it away to have a card without it"
        ) from error
    return found


def _recipe(config: Config) -> Iterator[str]:
    known = config.preset in presets
    changed = {
        key: values
        for key, values in changed_settings(presets.get(config.preset, Config()), config).items()
        if key.split(".")[0] not in MAY_DIFFER_ON_RESUME and key != "preset"
    }
    base = f"preset {code(config.preset)}" if known else "the defaults"
    if not changed:
        yield f"Settings: {base}, unchanged."
        return
    yield f"Settings: {base}, with these changes."
    rows = [
        (code(key), code(json.dumps(before)), code(json.dumps(after)))
        for key, (before, after) in changed.items()
    ]
    yield table(("setting", "preset" if known else "default", "this run"), rows)


def _preprocessing(network: TrainedNetwork) -> str:
    about = network.preprocessing
    resized = (
        f"Cut the square out of the image's center whose side is "
        f"{100 * about.center_fraction:g} % of the shorter side"
    )
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (about.mean, about.std))
    return "\n".join(
        [
            f"1. {resized}, and resize it to {about.size} x {about.size} pixels "
            f"({about.interpolation}).",
            "2. Take RGB in 0..1: divide bytes by 255.",
            f"3. Subtract the mean {mean}, then divide by the standard deviation {std}.",
        ]
    )
