"""Folders of images: class folders, folders without classes, Tiny-ImageNet."""

from __future__ import annotations

from dataclasses import replace

from coke.pipeline.sources.draft import Draft, labelled_by_folder
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import EXTENSIONS, Files, is_image_name
from coke.pipeline.sources.splits import SPLITS


def drafts(listing: Listing, labels: str) -> dict[str, Draft]:
    """Splits of a folder of images; keys are paths relative to the split's folder.

    Folders named train, val, valid, validation or test make splits when there are several. A
    single one (with no images beside it) is taken for the source itself, so ``SRC`` and
    ``SRC/train`` give the same keys.

    An image's class is its first-level folder, with two exceptions: a file of annotations beside
    a split's images (Tiny-ImageNet's ``val_annotations.txt``) knows better; and a split whose
    only folder is called ``images`` has no classes, nor has one with images outside of folders.

    Raises:
        ValueError: there are no images, or annotations do not fit them.
    """
    splits = [name for name in SPLITS if listing.has_folder(name)]
    if len(splits) > 1:
        return {split: _draft(listing.below(split), labels) for split in splits}
    for split in splits:
        if all(name.startswith(f"{split}/") for name in listing.names if is_image_name(name)):
            whole = _draft(listing.below(split), labels)
            beside = [name for name in listing.names if not name.startswith(f"{split}/")]
            return {"": replace(whole, ignored=[*beside, *whole.ignored])}
    return {"": _draft(listing, labels)}


def _draft(listing: Listing, labels: str) -> Draft:
    keys = tuple(name for name in listing.names if is_image_name(name))
    ignored = [name for name in listing.names if not is_image_name(name)]
    if not keys:
        found = f"it holds {len(ignored)} other files" if ignored else "it is empty"
        raise ValueError(
            f"no images in {listing.root}: {found}; images are files that end in "
            f"{', '.join(EXTENSIONS)}"
        )
    draft = Draft(
        keys=keys,
        labels=[None] * len(keys),
        images=Files(listing.root, keys),
        origin=listing.root,
        ignored=ignored,
    )
    if labels == "none":
        return draft
    notes = [n for n in ignored if "/" not in n and n.endswith("_annotations.txt")]
    if len(notes) == 1 and labels == "auto":
        return replace(draft, labels=_annotated(listing, notes[0], keys))
    folders = {key.partition("/")[0] if "/" in key else "" for key in keys}
    if labels == "auto" and ("" in folders or folders == {"images"}):
        return draft
    return labelled_by_folder(draft)


def _annotated(listing: Listing, notes: str, keys: tuple[str, ...]) -> list[str]:
    """Class of each image from lines of ``<file name> TAB <class> TAB ...``."""
    classes: dict[str, str] = {}
    for number, line in enumerate(listing.text(notes).splitlines(), 1):
        name, _, rest = line.partition("\t")
        if not line.strip():
            continue
        if not rest:
            raise ValueError(
                f"line {number} of {listing.path(notes)} is {line!r}; it should be a file name, a "
                "tab and a class"
            )
        classes[name] = rest.partition("\t")[0]
    if missing := [key for key in keys if key.rpartition("/")[2] not in classes]:
        raise ValueError(
            f"{listing.path(notes)} has no line for {len(missing)} images (first: {missing[0]}); "
            "complete it, or choose labels 'none' or 'folders'"
        )
    return [classes[key.rpartition("/")[2]] for key in keys]
