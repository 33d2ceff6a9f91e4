"""Random sources for tests that everything in a source is accounted for."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from coke.pipeline.sources.keys import from_system, to_system

_FOLDERS = ("cat", "dog", "images", "n01440764", "masks", "labels", "train", "val", "test", "Train",
            "Testing", "test1", "train2017", "unlabeled", "valid", "dev", "wörter", "a b", "data",
            ".hidden", "__MACOSX", "-x", "\udcff")  # fmt: skip
_STEMS = ("0", "1", "x.1", "x.2", "é", "a b", "two\nlines", ".dot", "ILSVRC2012_val_00000001",
          "meta", "\udce9")  # fmt: skip
_ENDINGS = (
    ".jpg",
    ".jpg",
    ".JPEG",
    ".png",
    ".PNG",
    ".txt",
    ".json",
    ".csv",
    ".seg.png",
    "",
    ".tgz",
)
_MEMBERS = (".jpg", ".cls", ".json", ".txt", ".seg.png", ".1.jpg")


def image_bytes(rng: random.Random) -> bytes:
    """A small JPEG; sometimes an empty file, or one that is no image."""
    if rng.random() < 0.1:
        return rng.choice([b"", b"no image"])
    buffer = io.BytesIO()
    color = tuple(rng.randrange(256) for _ in range(3))
    Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def random_folders(rng: random.Random, root: Path) -> None:
    """Nested folders with images and other files, links of all kinds, and empty folders."""
    root.mkdir()
    wrapper = rng.choice(["", "", "wrapper", "w/deeper"])
    names = rng.sample(_FOLDERS, rng.randint(1, 6))
    places = [Path(wrapper, top, rng.choice(["", *names, "u/v"])) for top in ("", *names) * 2]
    folders = [root / to_system(str(place)) for place in places]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(rng.choice([0, 1, 3])):
            path = folder / to_system(rng.choice(_STEMS) + rng.choice(_ENDINGS))
            if not path.is_dir():
                path.write_bytes(image_bytes(rng))
    for _ in range(rng.randint(0, 4)):
        link = rng.choice(folders) / rng.choice(["link", "link.jpg", ".link", "loop"])
        target = rng.choice([root, *folders, folders[0] / "gone", link, *root.rglob("*.jpg")])
        if not os.path.lexists(link):
            link.symlink_to(target)


def files_in(folder: Path) -> set[str]:
    """Relative names, decoded as UTF-8, of all files; links are followed, but not in circles."""
    found: set[str] = set()

    def visit(path: str, name: str, above: tuple[str, ...]) -> None:
        real = os.path.realpath(path)
        if not os.path.isdir(path):
            found.add(from_system(name))
        elif real not in above:
            for entry in os.listdir(path):
                visit(f"{path}/{entry}", f"{name}/{entry}" if name else entry, (*above, real))

    visit(str(folder), "", ())
    return found


def random_tars(rng: random.Random, root: Path) -> int:
    """Tars of records, some joined, with labels near and apart; returns how many members."""
    root.mkdir()
    count = 0
    splits = rng.choice([[""], ["train-", "val-"]])
    for number in range(rng.randint(1, 3)):
        for split in splits:
            data = b""
            for archive in range(rng.choice([1, 1, 2])):
                names = [
                    f"{rng.choice(['', 'd/', './e/', '.h/'])}{stem}{number}{archive}{ending}"
                    for stem in rng.sample(("0", "1", "x", "é"), rng.randint(1, 4))
                    for ending in rng.sample(_MEMBERS, rng.randint(1, 4))
                ]
                rng.shuffle(names)
                data += _tar(rng, names)
                count += len(names)
            (root / f"{split}{number}.tar").write_bytes(data)
    (root / "README").write_text("about", encoding="utf-8")
    return count + 1


def _tar(rng: random.Random, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="utf-8") as tar:
        for name in names:
            data = image_bytes(rng)
            if name.endswith((".cls", ".json")):
                data = b"3" if name.endswith(".cls") else rng.choice([b"{}", b'{"label": 3}'])
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
