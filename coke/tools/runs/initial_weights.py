"""``--init-from``: weights to start from, of another run, a checkpoint, or another project."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer, interpolated
from coke.tools.runs.architecture import network_of
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.weight_names import FoundBackbone, by_our_names, find_backbones, same_values
from coke.tools.runs.weights_file import Groups, read_weights, tensors_by_name
from coke.tools.runs.weights_report import InitialWeights, some

_HEADS = ("projector", "predictor")
_BACKBONE = "backbone."
_POSITIONS = "backbone.pos_embed"
#: Layers whose shape depends on the images' size or channels. They may differ and stay random then.
_INPUT_LAYERS = ("conv1.weight", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
_EXPANSION = "expand."  # our convolution behind the ResNet, which other projects have not


def load_initial_weights(model: nn.Module, source: str | Path) -> InitialWeights:
    """Copies weights into a model whose backbone is ``model.backbone``.

    The backbone is taken whole, from wherever in the file it is: prefixes are found by the shapes
    and the ends of names. Layers that depend on the images' size (the first convolution, patches'
    projection) may differ in shape; they stay random. Position embeddings of another grid are
    interpolated for a ViT of ours. Projector and predictor are taken from a whole model of ours,
    each whole or not at all.

    Args:
        source: a run folder (its newest epoch), a checkpoint folder or its ``state.pt``, a file of
            ``torch.save`` or ``.safetensors``, or a folder of a Hugging Face model. ResNets may
            have the names of torchvision, timm, pytorch-cifar or Hugging Face; transformers those
            of timm, which DINO, MoCo v3 and MAE have, too.

    Returns: what was taken and what was not.

    Raises:
        ValueError: the source cannot be read; its weights are of another network; it has several
            backbones and nothing tells which is meant; or a weight is NaN or infinite. The model
            is as it was.
    """
    path = Path(source).expanduser()
    if (path / "config.toml").is_file():
        groups = tensors_by_name(RunFolder(path).state())
    else:
        groups = read_weights(path)
    place, equals = _find(model, groups, source)
    tensors, target = groups[place.group], model.state_dict()
    sources = {_BACKBONE + name: saved for name, saved in place.saved.items()}
    if place.prefix.endswith(_BACKBONE):
        sources |= _heads(target, tensors, place.prefix.removesuffix(_BACKBONE))
    shared = {name: saved for name, saved in sources.items() if name in target}
    fitting = {n: s for n, s in shared.items() if tensors[s].shape == target[n].shape}
    resized = [n for n, s in shared.items() if _is_another_grid(model, n, tensors[s])]
    fitting |= {n: shared[n] for n in resized}
    _check_finite({s: tensors[s] for s in fitting.values()}, source)
    with torch.no_grad():
        for name, saved in fitting.items():
            value = tensors[saved]
            if name in resized:
                side = math.isqrt(target[name].shape[1] - 1)
                value = interpolated(value.float(), side, side)
            target[name].copy_(value)  # the state dict shares its memory with the model
    used = {*shared.values()}
    return InitialWeights(
        source=str(source),
        under=place.under,
        names=place.names,
        others=[other.under for other in equals],
        loaded=[name for name in target if name in fitting],
        missing=[name for name in target if name not in shared],
        unused=[name for name in tensors if name not in used],
        misfits=[
            f"{name}: {tuple(tensors[saved].shape)} != {tuple(target[name].shape)}"
            for name, saved in shared.items()
            if name not in fitting
        ],
        interpolated=[
            f"{name}: {tuple(tensors[shared[name]].shape)} to {tuple(target[name].shape)}"
            for name in resized
        ],
    )


def _is_another_grid(model: nn.Module, name: str, saved: Tensor) -> bool:
    """Whether a tensor is position embeddings, after a class token's, of another square grid."""
    if name != _POSITIONS or not isinstance(model.backbone, VisionTransformer) or saved.ndim != 3:
        return False
    own, patches = model.backbone.pos_embed.shape, saved.shape[1] - 1
    square = patches > 0 and math.isqrt(patches) ** 2 == patches
    return square and saved.shape != own and (saved.shape[0], saved.shape[2]) == (1, own[2])


def _find(
    model: nn.Module, groups: Groups, source: str | Path
) -> tuple[FoundBackbone, list[FoundBackbone]]:
    """The place to take the backbone from, and others that would fit as well."""
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    own = {name: value.shape for name, value in backbone.state_dict().items()}
    places = find_backbones(groups, own)
    if not places:
        names = [name for tensors in groups.values() for name in tensors]
        raise ValueError(
            f"--init-from {source}: nothing in it has a name of the model's backbone, a "
            f"{_network(model, own)}: it has {some(names, 3)}; the backbone has "
            f"{some(list(own), 3)}"
        )
    place = places[0]
    _check_network(model, own, by_our_names(groups, place), place, source)
    equals = [other for other in places[1:] if len(other.fits) == len(place.fits)]
    _check_choice(groups, place, equals, source)
    return place, equals


def _heads(
    target: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefix: str
) -> dict[str, str]:
    """Saved names of projector and predictor by the model's; none of a head that differs."""
    found: dict[str, str] = {}
    for head in _HEADS:
        names = [name for name in target if name.startswith(f"{head}.")]
        saved = {name: prefix + name for name in names if prefix + name in tensors}
        fits = all(tensors[s].shape == target[n].shape for n, s in saved.items())
        if len(saved) == len(names) and fits:
            found |= saved
    return found


def _check_network(
    model: nn.Module,
    own: Mapping[str, torch.Size],
    saved: Mapping[str, Tensor],
    place: FoundBackbone,
    source: str | Path,
) -> None:
    """Raises ValueError, naming both networks, where a backbone would be taken only in part."""
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    modules = {name for name, _ in backbone.named_modules()}
    parts = {
        name for name, child in backbone.named_children() if not isinstance(child, nn.Identity)
    }
    parameters = [n for n, _ in backbone.named_parameters() if not n.startswith(_EXPANSION)]
    fits = set(place.fits)
    differences = [
        f"{name} is not there"
        if name not in saved
        else f"{name} is {tuple(saved[name].shape)}, the model's {tuple(own[name])}"
        for name in parameters
        if name not in fits and not (name in saved and name in _INPUT_LAYERS)
    ]
    differences += [
        f"{name} is of a layer that the model has not"
        for name in saved
        if name.partition(".")[0] in parts
        and not name.startswith(_EXPANSION)
        and name.rpartition(".")[0] not in modules
    ]
    if not differences:
        return
    theirs = network_of({name: tuple(value.shape) for name, value in saved.items()})
    held = "weights of another network" if theirs is None else f"a {theirs.name}"
    network = _network(model, own)
    remedy = f"give weights of a {network}"
    if theirs is not None and theirs.name == network:
        held, remedy = f"a {theirs.name}, but not all of it or with other layers", "give them whole"
    elif (
        theirs is not None and theirs.settings and isinstance(backbone, ResNet | VisionTransformer)
    ):
        remedy = f"{theirs.settings} trains that one; or {remedy}"
    raise ValueError(
        f"--init-from {source} holds {held}"
        + (f" (under {place.under!r})" if place.under else "")
        + f", and the model is a {network}: {some(differences, 2)}. Nothing was taken; {remedy}"
    )


def _network(model: nn.Module, own: Mapping[str, torch.Size]) -> str:
    ours = network_of({name: tuple(shape) for name, shape in own.items()})
    if ours is not None:
        return ours.name
    return str(getattr(getattr(model, "config", None), "network", type(model.backbone).__name__))


def _check_choice(
    groups: Groups, place: FoundBackbone, equals: list[FoundBackbone], source: str | Path
) -> None:
    """Raises ValueError where several backbones fit and no word in front says which is meant."""
    rivals = [
        other.under
        for other in equals
        if other.preference == place.preference and not same_values(groups, place, other)
    ]
    if rivals:
        raise ValueError(
            f"--init-from {source} holds several backbones that fit: "
            f"{some([repr(name) for name in (place.under, *rivals)], 4)}; save the one that you "
            "mean in a file of its own"
        )


def _check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    if any(value.is_meta for value in tensors.values()):
        raise ValueError(
            f"--init-from {source}: its tensors are on the device 'meta', which has no values; "
            "save the weights from the device that they are on"
        )
    bad = [name for name, value in tensors.items() if not value.float().isfinite().all()]
    if bad:
        raise ValueError(
            f"--init-from {source}: {some(bad, 3)} {'has' if len(bad) == 1 else 'have'} NaN or "
            "infinite weights; give weights of an earlier epoch"
        )
