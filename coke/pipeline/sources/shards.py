"""WebDataset shards, and any other tars of images: members as they are, read by offset.

The files of a record share a name up to the first dot of its last part. A ``.cls`` or a ``.json``
among them may hold the label of its image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from coke.pipeline.sources.draft import Draft, Drafts, labelled_by_folder, unread
from coke.pipeline.sources.labels import labels_of_text, plain_label
from coke.pipeline.sources.listing import Listing, decoded_text
from coke.pipeline.sources.source import EXTENSIONS, Other, is_image_name
from coke.pipeline.sources.splits import by_split, split_folders
from coke.pipeline.sources.tar_members import Member, OpenTar, Span, TarMembers, scan_all
from coke.pipeline.sources.unpack import TAR_NAMES, without_tar_suffix
from coke.pipeline.sources.walk import HIDDEN, is_hidden

_JSON_LABELS = ("label", "cls", "class", "class_id", "target")
_LABEL_KINDS = ("cls", "json")  # the first one that has a label counts
_MASK = "taken for a mask: an image of the same record has a name with fewer dots"
_ALONE = "not an image file, and no image has its name"

_Field = tuple[Member, str | None]  # a member, and the label that it holds


@dataclass
class _Shard:
    """The contents of one tar.

    Attributes:
        images: the candidates; ``labels`` the label text of each.
        others: members that are no candidates, one by one.
        fields: how many members beside an image hold nothing that is read, by their extension.
        label_members: how many became labels, by their extension.
        count: members in all.
        lonely_labels: members that hold a label and have no image.
    """

    images: list[Member] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    label_members: Counter[str] = field(default_factory=Counter)
    count: int = 0
    lonely_labels: int = 0


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits of a folder of tars, or one tar.

    An image's key is its member name. Where a name occurs in several shards of a split, each key
    begins with the name of its shard. The shards of a coke data set give the keys that the data
    set was made from.

    Raises:
        ValueError: there are no tars or no images in them, or a tar is damaged.
    """
    tars = list(listing.names) if listing.alone else listing.ending(*TAR_NAMES)
    if not tars:
        raise ValueError(f"no .tar files in {listing.src}; choose another source than 'wds'")
    splits = {
        split: _draft(listing, names, labels)
        for split, names in by_split(tars, listing.root).items()
    }
    return Drafts(splits=splits, beside=unread(listing, splits, "the images are in the tars"))


def _draft(listing: Listing, tars: list[str], labels: str) -> Draft:
    paths = [listing.path(name) for name in tars]
    shards = list(scan_all(map(Span, paths), lambda tar: _read_shard(tar, labels == "auto")))
    images = TarMembers.of([(p, shard.images) for p, shard in zip(paths, shards, strict=True)])
    if not images.names:
        first = next((other.key for shard in shards for other in shard.others), "nothing")
        raise ValueError(
            f"no images in {len(tars)} tars of {listing.root} (first: {tars[0]}, which begins with "
            f"{first}); images are members whose names end in {', '.join(EXTENSIONS)}. Unpack a "
            "tar of anything else, and give the folder"
        )
    keys: Sequence[str] = images.names
    classes = None
    side_files: list[str] = []
    if (folder := _only_folder(tars)) is not None:
        keys, classes, side_files = _as_in_data_set(listing, folder, keys)
    texts = [text for shard in shards for text in shard.labels]
    draft = Draft(
        keys=keys,
        labels=labels_of_text(texts, keys),
        images=images,
        origin=listing.given(tars[0]) if len(tars) == 1 else listing.root,
        others=[
            *(other for shard in shards for other in shard.others),
            *_rows(
                [shard.fields for shard in shards], "beside images: no labels are read from them"
            ),
        ],
        classes=classes,
        opened=tars,
        inside=sum(shard.count for shard in shards),
        label_files=side_files,
        label_members=_rows(
            [shard.label_members for shard in shards], "whose contents are the labels of images"
        ),
    )
    if labels == "folders":
        draft = labelled_by_folder(draft)
    if labels == "auto":
        draft = replace(draft, notes=_notes(draft, images.names, shards))
    if len(set(keys)) < len(keys):
        stems = [without_tar_suffix(name) for name in tars]
        unique = [f"{stems[f]}/{key}" for f, key in zip(images.files, keys, strict=True)]
        draft = replace(draft, keys=unique)
    return draft


def _notes(draft: Draft, names: Sequence[str], shards: Sequence[_Shard]) -> list[str]:
    """Notes on labels, classes and splits that a tar seems to hold and that are not read."""
    notes = []
    if lonely := sum(shard.lonely_labels for shard in shards):
        notes.append(
            f"{lonely:,} labels in {draft.origin} have no image of their name in the same tar."
        )
    if any(label is not None for label in draft.labels):
        return notes
    if fields := sorted({ending for shard in shards for ending in shard.fields}):
        notes.append(
            f"No labels were read from {draft.origin}, nor from the {', '.join(fields[:3])} beside "
            f"its images: labels are in .cls, or {', '.join(_JSON_LABELS)} in .json."
        )
    if found := split_folders(names):
        splits = ", ".join(found.folders)
        notes.append(
            f"{draft.origin} holds folders of splits ({splits}), which are ingested as one set "
            "without labels. To keep them apart, unpack the tars and give the folder."
        )
    elif len({name.partition("/")[0] for name in names if "/" in name}) > 1:
        notes.append(
            f"{draft.origin} holds no labels. If its folders are classes, add --labels folders."
        )
    return notes


def _only_folder(names: list[str]) -> str | None:
    folders = {name.rpartition("/")[0] for name in names}
    return folders.pop() if len(folders) == 1 else None


def _rows(counters: Sequence[Counter[str]], what: str) -> list[Other]:
    """One line for all members of an extension: there may be as many as images."""
    counts: Counter[str] = Counter()
    for counter in counters:
        counts.update(counter)
    return [
        Other(f"*{ending}", f"{count:,} members {what}", count)
        for ending, count in sorted(counts.items())
    ]


def _read_shard(tar: OpenTar, wants_labels: bool) -> _Shard:
    shard = _Shard()
    apart: dict[str, list[_Field]] = {}  # records without an image, by stem
    unlabelled: dict[str, list[int]] = {}  # images without a label, by the stem of their record
    members = _visible(tar, wants_labels, shard)
    for stem, record in groupby(members, key=lambda pair: _stem(pair[0])):
        pairs = list(record)
        pictures = [member for member, _ in pairs if is_image_name(member.name)]
        if not pictures:
            apart.setdefault(stem, []).extend(pairs)
            continue
        # An image has fewer dots in its name than its mask (1.jpg, 1.seg.png). If all pictures of
        # a record have the same number of dots (x.1.jpg, x.2.jpg), all of them are images.
        dots = min(member.name.count(".") for member in pictures)
        images = [member for member in pictures if member.name.count(".") == dots]
        shard.others += [Other(m.name, _MASK) for m in pictures if m.name.count(".") > dots]
        fields = [pair for pair in pairs if not is_image_name(pair[0].name)]
        labels, used = _labels(images, fields, tar.path)
        shard.label_members.update(map(_ending, used))
        shard.fields.update(_ending(m.name) for m, _ in fields if m.name not in used)
        for label in labels:
            if label is None:
                unlabelled.setdefault(stem, []).append(len(shard.labels))
            shard.labels.append(label)
        shard.images += images
    for stem, fields in apart.items():
        _join(fields, unlabelled.get(stem, []), shard, tar.path)
    return shard


def _join(fields: Sequence[_Field], waiting: Sequence[int], shard: _Shard, path: str) -> None:
    """Gives labels that were packed apart from their images to them."""
    labels, used = _labels([shard.images[i] for i in waiting], fields, path)
    shard.label_members.update(map(_ending, used))
    for i, label in zip(waiting, labels, strict=True):
        shard.labels[i] = label
    shard.others += [Other(m.name, _ALONE) for m, _ in fields if m.name not in used]
    shard.lonely_labels += sum(text is not None and m.name not in used for m, text in fields)


def _labels(
    images: Sequence[Member], fields: Sequence[_Field], path: str
) -> tuple[list[str | None], set[str]]:
    """The label of each image among the files of a record, and the names of those that gave one.

    A label with the name of one image (``x.1.cls`` beside ``x.1.jpg``) is that image's; any other
    is of all images of the record.

    Raises:
        ValueError: a record has several labels, and nothing says which is of which image.
    """
    texts = {member.name: text for member, text in fields if text is not None}
    labels: list[str | None] = []
    used: set[str] = set()
    for image in images if texts else ():
        name = _label_name(image.name, texts, path)
        labels.append(None if name is None else texts[name])
        used.update([name] if name else [])
    return labels or [None] * len(images), used


def _label_name(image: str, texts: dict[str, str], path: str) -> str | None:
    stem = image.rpartition(".")[0]
    for kind in _LABEL_KINDS:
        shared = [name for name in texts if name.lower().endswith(f".{kind}")]
        if own := [name for name in shared if name.rpartition(".")[0] == stem]:
            return own[0]
        if len({texts[name] for name in shared}) > 1:
            raise ValueError(
                f"{', '.join(shared)} in {path} are labels of one record and differ; name each for "
                f"its image, as {stem}.{kind} is for {image}"
            )
        if shared:
            return shared[0]
    return None


def _visible(tar: OpenTar, wants_labels: bool, shard: _Shard) -> Iterator[_Field]:
    """Members with the label that they hold. Small ones have been read with their header."""
    for member in tar:
        shard.count += 1
        if is_hidden(member.name):
            shard.others.append(Other(member.name, HIDDEN))
            continue
        text = None
        kind = member.name.lower()
        if wants_labels and kind.endswith(".cls"):
            text = _text(tar, member)
        elif wants_labels and kind.endswith(".json"):
            text = _label_of_json(_text(tar, member), f"{member.name} in {tar.path}")
        yield member, text


def _text(tar: OpenTar, member: Member) -> str:
    try:
        return decoded_text(tar.contents(member))
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
    label = plain_label(found, where)
    return None if label is None else str(label)


def _stem(member: Member) -> str:
    folder, _, file = member.name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _ending(name: str) -> str:
    """The part of a member's name behind the stem of its record."""
    _, dot, ending = name.rpartition("/")[2].partition(".")
    return dot + ending


def _as_in_data_set(
    listing: Listing, folder: str, keys: Sequence[str]
) -> tuple[Sequence[str], tuple[str, ...] | None, list[str]]:
    """Original keys and class names, where the shards are a coke data set's, and their files."""
    prefix = f"{folder}/" if folder else ""
    files = [f"{prefix}manifest.json", f"{prefix}keys.txt"]
    if not all(map(listing.has, files)):
        return keys, None, []
    try:
        manifest = json.loads(listing.text(f"{prefix}manifest.json"))
        classes = tuple(map(str, manifest["classes"]))
        original = listing.text(f"{prefix}keys.txt").split("\n")[:-1]
        return [original[int(key.partition(".")[0])] for key in keys], classes, files
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{listing.path(f'{prefix}manifest.json')} and keys.txt do not fit the tars beside "
            f"them ({error!r}); remove them to ingest the tars alone"
        ) from error
