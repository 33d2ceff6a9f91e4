"""WebDataset shards, and any other tars of images: members as they are, read by offset.

The files of a record share a name up to the first dot of its last part. A ``.cls`` or a ``.json``
among them may hold the label of its image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from coke.pipeline.sources.draft import Draft, labelled_by_folder, labels_of_text
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.source import EXTENSIONS, is_image_name
from coke.pipeline.sources.splits import by_split
from coke.pipeline.sources.storage import is_hidden
from coke.pipeline.sources.tar_members import Member, OpenTar, Span, TarMembers, scan_all

_JSON_LABELS = ("label", "cls", "class", "class_id", "target")


@dataclass
class _Shard:
    """What one tar holds: images, the label text of each, and names that are no candidates."""

    images: list[Member] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def drafts(listing: Listing, labels: str) -> dict[str, Draft]:
    """Splits of a folder of tars, or one tar.

    An image's key is its member name. Where a name occurs in several shards of a split, each key
    begins with the name of its shard. The shards of a coke data set give the keys that the data
    set was made from.

    Raises:
        ValueError: there are no tars or no images in them, or a tar is damaged.
    """
    tars = list(listing.names) if listing.alone else listing.ending(".tar")
    if not tars:
        raise ValueError(f"no .tar files in {listing.src}; choose another source than 'wds'")
    return {
        split: _draft(listing, names, labels)
        for split, names in by_split(tars, listing.root).items()
    }


def _draft(listing: Listing, tars: list[str], labels: str) -> Draft:
    paths = [listing.path(name) for name in tars]
    shards = list(scan_all(map(Span, paths), lambda tar: _read_shard(tar, labels == "auto")))
    images = TarMembers.of([(p, shard.images) for p, shard in zip(paths, shards, strict=True)])
    if not images.names:
        raise ValueError(
            f"no images in {len(tars)} tars of {listing.root} (first: {tars[0]}); images are "
            f"members whose names end in {', '.join(EXTENSIONS)}"
        )
    keys: Sequence[str] = images.names
    classes = None
    if (folder := _only_folder(tars)) is not None:
        keys, classes = _as_in_data_set(listing, folder, keys)
    texts = [text for shard in shards for text in shard.labels]
    draft = Draft(
        keys=keys,
        labels=labels_of_text(texts, keys),
        images=images,
        origin=paths[0] if len(paths) == 1 else listing.root,
        ignored=[name for shard in shards for name in shard.ignored],
        classes=classes,
    )
    if labels == "folders":
        draft = labelled_by_folder(draft)
    if len(set(keys)) < len(keys):
        stems = [name.removesuffix(".tar") for name in tars]
        unique = [f"{stems[f]}/{key}" for f, key in zip(images.files, keys, strict=True)]
        draft = replace(draft, keys=unique)
    return draft


def _only_folder(names: list[str]) -> str | None:
    folders = {name.rpartition("/")[0] for name in names}
    return folders.pop() if len(folders) == 1 else None


def _read_shard(tar: OpenTar, wants_labels: bool) -> _Shard:
    shard = _Shard()
    for _, record in groupby(_with_contents(tar, wants_labels), key=lambda pair: _stem(pair[0])):
        pairs = list(record)
        images = [member for member, _ in pairs if is_image_name(member.name)]
        if not images:
            shard.ignored.append(pairs[0][0].name)
            continue
        texts = {m.name.rpartition(".")[2]: text for m, text in pairs if text is not None}
        # Of an image and its mask (1.jpg, 1.seg.png), the image has the plainer name. Where names
        # do not tell (x.1.jpg, x.2.jpg in a tar that was not made as shards), all are images.
        dots = min(member.name.count(".") for member in images)
        for member in images:
            if member.name.count(".") > dots:
                shard.ignored.append(member.name)
            else:
                shard.images.append(member)
                shard.labels.append(texts.get("cls", texts.get("json")))
    return shard


def _with_contents(tar: OpenTar, wants_labels: bool) -> Iterator[tuple[Member, str | None]]:
    """Members with the label that they hold. Small ones have been read with their header."""
    for member in tar:
        if any(map(is_hidden, member.name.split("/"))):
            continue
        text = None
        if wants_labels and member.name.endswith(".cls"):
            text = _text(tar, member)
        elif wants_labels and member.name.endswith(".json"):
            text = _label_of_json(_text(tar, member), f"{member.name} in {tar.path}")
        yield member, text


def _text(tar: OpenTar, member: Member) -> str:
    try:
        return tar.contents(member).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{member.name} in {tar.path} holds no text ({error}); choose labels 'none'"
        ) from error


def _label_of_json(text: str, where: str) -> str | None:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}); choose labels 'none'") from error
    if not isinstance(record, dict):
        return None
    found = next((record[name] for name in _JSON_LABELS if record.get(name) is not None), None)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | str)):
        raise ValueError(f"{where} has the label {found!r}; a label is a number or a name")
    return None if found is None else str(found)


def _stem(member: Member) -> str:
    folder, _, file = member.name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _as_in_data_set(
    listing: Listing, folder: str, keys: Sequence[str]
) -> tuple[Sequence[str], tuple[str, ...] | None]:
    """Original keys and class names, where the shards are a coke data set's."""
    prefix = f"{folder}/" if folder else ""
    if not (listing.has(f"{prefix}manifest.json") and listing.has(f"{prefix}keys.txt")):
        return keys, None
    try:
        manifest = json.loads(listing.text(f"{prefix}manifest.json"))
        classes = tuple(map(str, manifest["classes"]))
        original = listing.text(f"{prefix}keys.txt").split("\n")[:-1]
        return [original[int(key.partition(".")[0])] for key in keys], classes
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{listing.path(f'{prefix}manifest.json')} and keys.txt do not fit the tars beside "
            f"them ({error!r}); remove them to ingest the tars alone"
        ) from error
