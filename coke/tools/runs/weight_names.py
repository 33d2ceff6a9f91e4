"""Where in a file the weights of a backbone are, whatever stands before their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coke.tools.runs.weights_file import Groups

_HF_CONV = r"(convolution|normalization)\.(\w+)"
_HF_STEM = re.compile(rf"embedder\.embedder\.{_HF_CONV}")
_HF_BLOCK = re.compile(
    rf"encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.(\d+)|shortcut)\.{_HF_CONV}"
)
#: ``nn.Sequential(*resnet.children())`` of torchvision, and without its max pooling. The latter is
#: that of our own network too, which has no module for ReLU and an expansion at the end.
_CHILDREN = ("conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4")
_CHILDREN_SMALL = ("conv1", "bn1", "", "layer1", "layer2", "layer3", "layer4", "expand")

#: Words before a backbone's name that say which of several it is. Evaluations of DINO use the
#: teacher, those of MoCo and BYOL the network that is trained; averaged weights are the better.
_PREFERRED = frozenset(("teacher", "ema", "swa", "averaged"))
_TRAINED = frozenset(("online", "query", "q"))
_COPIES = frozenset(("momentum", "target", "key", "k", "student"))


def _same(name: str) -> str | None:
    return name


def _hugging_face(name: str) -> str | None:
    """``encoder.stages.0.layers.1.layer.2.convolution.weight`` is ``layer1.1.conv3.weight``."""
    stem = _HF_STEM.fullmatch(name)
    if stem is not None:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    block = _HF_BLOCK.fullmatch(name)
    if block is None:
        return None
    stage, row, shortcut = int(block[1]) + 1, block[2], block[4] is None
    convolution, last = block[5] == "convolution", block[6]
    if shortcut:
        return f"layer{stage}.{row}.downsample.{0 if convolution else 1}.{last}"
    return f"layer{stage}.{row}.{'conv' if convolution else 'bn'}{int(block[4]) + 1}.{last}"


def _sequence(children: tuple[str, ...]) -> Callable[[str], str | None]:
    def translate(name: str) -> str | None:
        number, _, rest = name.partition(".")
        if not number.isdigit() or int(number) >= len(children) or not children[int(number)]:
            return None
        return f"{children[int(number)]}.{rest}"

    return translate


def _shortcut(name: str) -> str | None:
    return name.replace(".shortcut.", ".downsample.")


#: From a project's names to torchvision's, which are ours.
NAMES: dict[str, Callable[[str], str | None]] = {
    "torchvision": _same,
    "pytorch-cifar": _shortcut,
    "Hugging Face": _hugging_face,
    "a sequence of torchvision's layers": _sequence(_CHILDREN),
    "a sequence of torchvision's layers without max pooling": _sequence(_CHILDREN_SMALL),
}


@dataclass(kw_only=True)
class FoundBackbone:
    """A place in a file with tensors of a backbone.

    Attributes:
        group, prefix: the mapping, by its keys, and what stands before names in it.
        names: key of :data:`NAMES`.
        saved: name in the mapping by our name, of all tensors after the prefix.
        fits: our names with equal shapes; ``named`` are those with any shape.
    """

    group: str
    prefix: str
    names: str
    saved: dict[str, str] = field(default_factory=dict)
    fits: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    @property
    def under(self) -> str:
        """Keys and prefix, as people write them."""
        return f"{self.group}.{self.prefix}" if self.group else self.prefix

    @property
    def preference(self) -> int:
        """Which of several that fit equally well is meant: the highest."""
        words = set(re.split(r"[._]", self.under.lower()))
        if words & _PREFERRED:
            return 0 if words & (_COPIES - {"momentum"}) else 2
        return -1 if words & _COPIES else int(bool(words & _TRAINED))


def find_backbones(groups: Groups, own: Mapping[str, torch.Size]) -> list[FoundBackbone]:
    """All places with tensors of the backbone, the best first: most that fit, then preference.

    Args:
        own: shapes by the backbone's names.
    """
    found: dict[tuple[str, str, str], FoundBackbone] = {}
    for group, tensors in groups.items():
        for name, value in tensors.items():
            for start in _starts(name):
                for names, translate in NAMES.items():
                    ours = translate(name[start:])
                    if ours is None or ours not in own:
                        continue
                    key = (group, name[:start], names)
                    place = found.setdefault(
                        key, FoundBackbone(group=group, prefix=name[:start], names=names)
                    )
                    place.named.append(ours)
                    if value.shape == own[ours]:
                        place.fits.append(ours)
    ranked: list[FoundBackbone] = []
    for place in sorted(
        found.values(), key=lambda f: (len(f.fits), len(f.named), f.preference), reverse=True
    ):
        if place.under not in {better.under for better in ranked}:  # the same by other names
            ranked.append(place)
    for place in ranked:
        for name in groups[place.group]:
            if name.startswith(place.prefix):
                rest = name[len(place.prefix) :]
                place.saved[NAMES[place.names](rest) or rest] = name
    return ranked


def same_values(groups: Groups, a: FoundBackbone, b: FoundBackbone) -> bool:
    """Whether two places hold equal tensors."""
    return all(
        torch.equal(groups[a.group][a.saved[name]], groups[b.group][b.saved[name]])
        for name in a.fits
        if name in b.saved
    )


def by_our_names(groups: Groups, place: FoundBackbone) -> dict[str, Tensor]:
    """All tensors after a place's prefix."""
    return {ours: groups[place.group][name] for ours, name in place.saved.items()}


def _starts(name: str) -> list[int]:
    """Where a part of a dotted name starts."""
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
