"""``--init-from``: weights to start from, of another run, a checkpoint, or a plain state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coke.tools.runs.run_folder import RunFolder

_WRAPPERS = ("state_dict", "model")  # keys that other projects save weights under
_PREFIXES = ("module.", "_orig_mod.")  # that DataParallel and torch.compile add to names


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What was taken from a source, by the names of the model.

    Attributes:
        loaded: names of tensors that were taken.
        missing: names of the model's tensors that the source has not.
        unused: names in the source that the model has not, such as a classifier.
        misfits: names that both have, in other shapes, as ``name: saved != the model's``.
    """

    source: str
    loaded: list[str]
    missing: list[str]
    unused: list[str]
    misfits: list[str]

    def lines(self) -> list[str]:
        """The report, for people."""
        found = [f"weights: {len(self.loaded)} tensors from {self.source}"]
        for what, names in (
            ("stay random", self.missing),
            ("not used", self.unused),
            ("of another shape, stay random", self.misfits),
        ):
            if names:
                rest = f", and {len(names) - 4} more" if len(names) > 4 else ""
                found.append(f"  {what}: {', '.join(names[:4])}{rest}")
        return found


def load_initial_weights(model: nn.Module, source: str | Path) -> InitialWeights:
    """Copies what fits into a model whose backbone is ``model.backbone``.

    Args:
        source: a run folder (its newest epoch), a checkpoint folder or its ``state.pt``, or a file
            of a state dict: of the whole model, or of a backbone with torchvision's names.

    Raises:
        ValueError: the source cannot be read, or nothing in it fits; the message shows names of
            both sides.
    """
    saved = {_plain(name): value for name, value in _weights(Path(source)).items()}
    own = model.state_dict()
    loaded, unused, misfits = [], [], []
    for name, value in saved.items():
        place = next((p for p in (name, f"backbone.{name}") if p in own), None)
        if place is None:
            unused.append(name)
        elif own[place].shape != value.shape:
            misfits.append(f"{place}: {tuple(value.shape)} != {tuple(own[place].shape)}")
        else:
            with torch.no_grad():
                own[place].copy_(value)  # the state dict shares its memory with the model
            loaded.append(place)
    # A counter or a statistic of equal shape alone is chance.
    if not any(name in loaded for name, _ in model.named_parameters()):
        raise ValueError(
            f"nothing in {source} fits this model: it has "
            f"{_some(misfits or unused)}, the model {_some(list(own))}. "
            "Set model.depth, model.width and model.stem to what the weights were trained with"
        )
    taken = {*loaded, *(line.split(":")[0] for line in misfits)}
    missing = [name for name in own if name not in taken]
    return InitialWeights(
        source=str(source), loaded=loaded, missing=missing, unused=unused, misfits=misfits
    )


def _weights(source: Path) -> dict[str, Tensor]:
    if (source / "config.toml").is_file():
        state: Any = RunFolder(source).state()
    else:
        file = source / "state.pt" if source.is_dir() else source
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(
                f"--init-from {source}: there is no {file}; name a run folder, a checkpoint, or a "
                "file of weights"
            ) from None
        except Exception as error:  # torch raises half a dozen unrelated types here
            raise ValueError(
                f"--init-from {source}: {file} cannot be read as weights ({type(error).__name__}); "
                "save them with torch.save(model.state_dict(), FILE)"
            ) from error
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    tensors = (
        {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if isinstance(state, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(f"--init-from {source}: it holds no tensors by name")
    return tensors


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
