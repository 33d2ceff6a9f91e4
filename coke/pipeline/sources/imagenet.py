"""ImageNet as it is handed out: ILSVRC2012's tars, read where they are.

``ILSVRC2012_img_train.tar`` holds one tar per class, each with its images. Bytes inside an inner
tar have a fixed place in the outer file, so nothing is unpacked. Keys are those of the usual
class folders: ``n01440764/n01440764_18.JPEG``, ``n01751748/ILSVRC2012_val_00000001.JPEG``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from coke.pipeline.sources.draft import Draft, Drafts, unread
from coke.pipeline.sources.imagenet_truth import ACCEPTED, validation_classes
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import Other, is_image_name
from coke.pipeline.sources.tar_members import Member, Span, TarMembers, scan, scan_all

_OFFICIAL = re.compile(r"ILSVRC2012_img_(train|val|test)\w*\.tar")
_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")


def is_here(listing: Listing) -> bool:
    """Official names in a folder; a single file is a tar of any name and is looked into."""
    if listing.alone:
        return _split_of_tar(listing, listing.names[0]) != ""
    return bool(_official(listing) or _class_tars(listing))


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits train, val and test, of the official tars that are there.

    A folder of class tars (``n01440764.tar``, ...), as an unpacked train tar leaves them, is train.

    Raises:
        ValueError: there are no such tars, they are damaged, or the validation images have no
            labels beside them.
    """
    tars = {listing.names[0]: _split_of_tar(listing, listing.names[0])} if listing.alone else {}
    tars = tars or _official(listing)
    found: dict[str, Draft] = {}
    for name, split in sorted(tars.items(), key=lambda item: ("train val test").find(item[1])):
        if split in found:
            raise ValueError(
                f"{listing.root} holds several tars of {split}; give one as the source"
            )
        path = listing.path(name)
        if split == "train":
            outer = scan(Span(path), list)
            inner = [_class_span(path, member) for member in outer]
            found[split] = _train(listing, inner, opened=[name])
        elif split:
            found[split] = _flat(listing, name, split, labels)
    if not found and (names := _class_tars(listing)):
        spans = [(_class_of(name), Span(listing.path(name))) for name in names]
        found["train"] = _train(listing, spans, opened=names)
    if not found:
        raise ValueError(
            f"no ImageNet tars in {listing.src}; give ILSVRC2012_img_train.tar or "
            "ILSVRC2012_img_val.tar, or the folder that holds them"
        )
    if empty := next((draft.origin for draft in found.values() if not draft.keys), None):
        raise ValueError(f"no images in the ImageNet tars of {empty}; download them again")
    splits = found if len(found) > 1 else {"": found.popitem()[1]}
    return Drafts(
        splits=splits, beside=unread(listing, splits, "the images are in ImageNet's tars")
    )


def _official(listing: Listing) -> dict[str, str]:
    matches = {name: _OFFICIAL.fullmatch(name) for name in listing.names}
    return {name: match[1] for name, match in matches.items() if match}


def _class_tars(listing: Listing) -> list[str]:
    tars = listing.ending(".tar")
    return tars if all(_CLASS_TAR.fullmatch(name) for name in tars) else []


def _split_of_tar(listing: Listing, name: str) -> str:
    if match := _OFFICIAL.fullmatch(name):
        return match[1]
    first = scan(Span(listing.path(name)), lambda tar: list(islice(tar, 1)))
    if first and _CLASS_TAR.fullmatch(first[0].name):
        return "train"
    return "val" if first and first[0].name.startswith("ILSVRC2012_val_") else ""


def _class_of(name: str) -> str:
    match = _CLASS_TAR.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} should be the tar of a class, such as n01440764.tar")
    return match[1]


def _class_span(path: str, member: Member) -> tuple[str, Span]:
    try:
        return _class_of(member.name), Span(path, member.offset, member.size)
    except ValueError as error:
        raise ValueError(f"{path} is not ImageNet's train tar: {error}") from error


def _train(listing: Listing, tars: Sequence[tuple[str, Span]], *, opened: Sequence[str]) -> Draft:
    contents = list(scan_all([span for _, span in tars], list))
    members = [_images(inside) for inside in contents]
    wnids = [wnid for (wnid, _), inside in zip(tars, members, strict=True) for _ in inside]
    images = TarMembers.of(
        [(span.path, inside) for (_, span), inside in zip(tars, members, strict=True)]
    )
    others = [
        other
        for (wnid, _), inside in zip(tars, contents, strict=True)
        for other in _others(inside, f"{wnid}/")
    ]
    return Draft(
        keys=[f"{wnid}/{name}" for wnid, name in zip(wnids, images.names, strict=True)],
        labels=wnids,
        images=images,
        origin=listing.src,
        others=others,
        opened=opened,
        inside=sum(map(len, contents)),
    )


def _flat(listing: Listing, name: str, split: str, labels: str) -> Draft:
    path = listing.path(name)
    contents = scan(Span(path), list)
    members = _images(contents)
    names = [member.name.rpartition("/")[2] for member in members]
    # The truth is read even if labels are not wanted: keys must not depend on ``labels``.
    truth = validation_classes(listing, names) if split == "val" else None
    if split == "val" and truth is None and labels != "none":
        raise ValueError(
            f"the images in {path} have no labels beside them; add {ACCEPTED}, or choose labels "
            "'none'"
        )
    keys = [f"{c}/{n}" for c, n in zip(truth.classes, names, strict=True)] if truth else names
    return Draft(
        keys=keys,
        labels=truth.classes if truth else [None] * len(names),
        images=TarMembers.of([(path, members)]),
        origin=path,
        others=_others(contents, ""),
        opened=[name],
        inside=len(contents),
        label_files=truth.files if truth else (),
    )


def _images(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if is_image_name(member.name)]


def _others(members: Sequence[Member], prefix: str) -> list[Other]:
    reason = "not an image file: its name ends otherwise"
    return [Other(prefix + m.name, reason) for m in members if not is_image_name(m.name)]
