"""The model card beside an exported file."""

from __future__ import annotations

from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

#: Text by which a later export knows a card as its own.
MARKER = "Exported by `coke export`"


def model_card(network: TrainedNetwork, form: Format, settings: ExportSettings, name: str) -> str:
    """The card in Markdown; it has :data:`MARKER` in it.

    Args:
        name: name of the exported file or folder.
    """
    about = network.preprocessing
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{MARKER} from a run of CoKe: {network.config.model.network}, epoch {network.epoch}, "
            f"{network.dim:,} features for an image.",
            "",
            "## Pre-processing",
            "",
            f"A center crop ({about.center_fraction:g} of the shorter side) resized to "
            f"{about.size} pixels ({about.interpolation}). RGB values in 0..1, less the mean "
            f"{about.mean}, divided by the standard deviation {about.std}.",
            "",
            "## Loading",
            "",
            "```python",
            form.loading(network, settings, name),
            "```",
            "",
        ]
    )
