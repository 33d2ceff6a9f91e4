"""Sources: a collection of images as sorted keys, labels, and bytes on demand.

Three layouts are known: class folders (``SRC/<class>/**/image``), folders without labels, and
MNIST-style IDX files. Keys are paths relative to the source, with forward slashes, sorted by
their UTF-8 bytes, so that the same collection has the same order on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coke.pipeline import idx

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLITS = ("train", "val", "valid", "validation", "test")
LABELS = ("auto", "folders", "none")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Candidate images: what is there, before anyone has looked inside the files.

    Attributes:
        root: the folder the keys are relative to; for IDX data, the file of images.
        keys: one per candidate, sorted by UTF-8 bytes.
        labels: one per candidate, an index into ``classes``; -1 = none.
        classes: names of the labels.
        ignored: keys of files that are no candidates: their names are not images'.
        is_idx: keys are numbers of images in an IDX file instead of paths.
    """

    root: Path
    keys: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    is_idx: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def origin(self) -> str:
        """What the keys are relative to, for messages."""
        return str(self.root)

    def describe(self, i: int) -> str:
        """Where candidate ``i`` is, for messages."""
        return str(self.root / self.keys[i])

    def read(self, i: int) -> bytes:
        """Bytes of the file of candidate ``i``.

        Raises:
            OSError: the file cannot be read.
        """
        if self.is_idx:
            return idx.image_file(self.root, int(self.keys[i]))
        return (self.root / self.keys[i]).read_bytes()

    def stamp(self, i: int) -> str:
        """Changes when the file that holds candidate ``i`` does, and costs no reading.

        Size and modification time; empty where the file is gone.
        """
        try:
            status = os.stat(self.root if self.is_idx else os.path.join(self.root, self.keys[i]))
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"

    def take(self, positions: Sequence[int]) -> Source:
        """Only these candidates: a small piece of work that travels to another process."""
        return replace(
            self,
            keys=tuple(self.keys[i] for i in positions),
            labels=tuple(self.labels[i] for i in positions),
            ignored=(),
        )


def key_problem(key: str) -> str | None:
    """Why a key cannot be written into ``keys.txt``; None when it can."""
    if key.splitlines() != [key]:
        return "the file name holds a line break: rename it"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8: rename it"
    return None


def find_splits(src: str | Path, *, labels: str = "auto") -> dict[str, Source]:
    """What ``src`` holds: one source per split, or one under the name ``""``.

    Folders named train, val, valid, validation or test make splits when there are several. A
    single one (with no images beside it) is taken for the source itself, so ``SRC`` and
    ``SRC/train`` give the same keys. Classes are numbered over all splits together.

    Args:
        src: the folder.
        labels: ``"folders"`` labels by first-level folder, ``"none"`` not at all; ``"auto"``
            labels by folder unless images lie directly in the source.

    Raises:
        ValueError: ``src`` is missing, no folder, without images, or not laid out as ``labels``
            says; or IDX files are damaged.
    """
    src = Path(src)
    if labels not in LABELS:
        raise ValueError(f"labels is {labels!r}; choose one of {', '.join(LABELS)}")
    if not src.exists():
        raise ValueError(f"source {src} does not exist; give the folder that holds the images")
    if not src.is_dir():
        raise ValueError(f"source {src} is a file; give the folder that holds the images")
    if found := _idx_splits(src, labels):
        return found
    names = [name for name in SPLITS if (src / name).is_dir()]
    if len(names) > 1:
        return _agree({name: _labelled(src / name, *_images(src / name), labels) for name in names})
    keys, ignored = _images(src)
    for name in names:
        if all(key.startswith(f"{name}/") for key in keys):
            keys, src = [key.removeprefix(f"{name}/") for key in keys], src / name
            ignored = [key.removeprefix(f"{name}/") for key in ignored]
    return {"": _labelled(src, keys, ignored, labels)}


def _images(root: Path) -> tuple[list[str], list[str]]:
    """Sorted keys of the images below a folder, and of the other files."""
    files = list(_files(root, "", ()))
    keys = [key for key in files if key.lower().endswith(EXTENSIONS)]
    if not keys:
        found = f"it holds {len(files)} other files" if files else "it is empty"
        raise ValueError(
            f"no images in {root}: {found}; images are files that end in {', '.join(EXTENSIONS)}"
        )
    others = sorted(set(files) - set(keys), key=os.fsencode)
    return sorted(keys, key=os.fsencode), others


def _labelled(root: Path, keys: list[str], ignored: list[str], labels: str) -> Source:
    direct = [key for key in keys if "/" not in key]
    if labels == "folders" and direct:
        raise ValueError(
            f"{len(direct)} images lie directly in {root} (first: {direct[0]!r}), so they have no "
            "class; move them into class folders, or choose labels 'none'"
        )
    if labels == "none" or direct:
        return Source(
            root=root,
            keys=tuple(keys),
            labels=(-1,) * len(keys),
            classes=(),
            ignored=tuple(ignored),
        )
    names = [key.partition("/")[0] for key in keys]
    classes = _sorted(names)
    number = {name: label for label, name in enumerate(classes)}
    return Source(
        root=root,
        keys=tuple(keys),
        labels=tuple(number[name] for name in names),
        classes=classes,
        ignored=tuple(ignored),
    )


def _files(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Keys of all visible files below ``folder``.

    Linked folders are followed (subsets of ImageNet are commonly made of links), except into a
    folder that we are inside of. A link to nothing is listed: reading it will say why it fails.
    """
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ValueError(f"cannot list folder {folder}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        # Only links are asked again: a collection has millions of files and a stat costs.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
        else:
            yield prefix + entry.name


def _agree(splits: dict[str, Source]) -> dict[str, Source]:
    """Renumbers labels so that a class has one number in all splits."""
    classes = _sorted(name for source in splits.values() for name in source.classes)
    number = {name: label for label, name in enumerate(classes)}
    return {
        split: replace(
            source,
            classes=classes,
            labels=tuple(-1 if i < 0 else number[source.classes[i]] for i in source.labels),
        )
        for split, source in splits.items()
    }


def _sorted(names: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=os.fsencode))


def _idx_splits(src: Path, labels: str) -> dict[str, Source]:
    found = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = idx.find(src, f"{prefix}-images", "idx3-ubyte")
        if images is None:
            continue
        count = idx.count_images(images)
        numbers = idx.find(src, f"{prefix}-labels", "idx1-ubyte")
        if numbers is None and labels == "folders":
            raise ValueError(
                f"{images} has no labels beside it ({prefix}-labels-idx1-ubyte is missing); "
                "add them, or choose labels 'none'"
            )
        given = (-1,) * count
        if numbers is not None and labels != "none":
            given = idx.read_labels(numbers)
            if len(given) != count:
                raise ValueError(
                    f"{numbers} holds {len(given)} labels and {images} {count} images; "
                    "download both again"
                )
        width = max(5, len(str(count - 1)))
        found[split] = Source(
            root=images,
            keys=tuple(f"{i:0{width}d}" for i in range(count)),
            labels=given,
            classes=(),
            is_idx=True,
        )
    n_classes = 1 + max((label for source in found.values() for label in source.labels), default=-1)
    classes = tuple(str(label) for label in range(n_classes))
    found = {split: replace(source, classes=classes) for split, source in found.items()}
    return found if len(found) != 1 else {"": found.popitem()[1]}
