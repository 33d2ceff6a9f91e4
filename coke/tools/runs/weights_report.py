"""What a run started from, where that is not random: ``initial_weights.json``."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 4  # names in a line


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What was taken from a source, by the names of the model.

    Attributes:
        source: the run, checkpoint or file.
        under: where the backbone is in the source: keys and prefix, as ``teacher.backbone.``.
        names: whose names the source has: ``torchvision``, ``Hugging Face``, ...
        others: other places with a backbone that would fit.
        loaded: tensors that were taken.
        missing: the model's tensors that the source has not, or not with the rest of their head.
        unused: names beside the backbone that the model has not, such as a classifier.
        misfits: tensors that both have, in other shapes, as ``name: saved != the model's``.
        interpolated: position embeddings of another grid, as ``name: saved to the model's``.
    """

    source: str
    under: str
    names: str
    others: list[str]
    loaded: list[str]
    missing: list[str]
    unused: list[str]
    misfits: list[str]
    interpolated: list[str]

    def lines(self) -> list[str]:
        """The report, for people."""
        place = f", under {self.under!r}" if self.under else ""
        names = "" if self.names == "torchvision" else f", with the names of {self.names}"
        found = [f"weights: {len(self.loaded)} tensors from {self.source}{place}{names}"]
        for what, listed in (
            ("also there, not taken", self.others),
            ("stay random", self.missing),
            ("not used", self.unused),
            ("of another shape, stay random", self.misfits),
            ("interpolated", self.interpolated),
        ):
            if listed:
                found.append(f"  {what}: {some(listed, _SHOWN)}")
        return found


def some(names: list[str], shown: int) -> str:
    """The first names, and how many more there are."""
    rest = f", and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
