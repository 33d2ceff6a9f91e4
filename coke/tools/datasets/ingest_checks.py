"""The first pass of an ingest: consecutive images are checked, a piece of work at a time.

A piece is a pure function of its task, so any process or machine may do it, twice if it must be. A
piece whose result is in the journal is not done again, but for images that could not be read.
"""

from __future__ import annotations

import hashlib
import socket
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.files import journal
from coke.pipeline.containers.plan import Candidate
from coke.pipeline.images.jpeg import Verdict, check, check_header
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.remote.web import NoAnswerError, RefusedError
from coke.pipeline.sources import Source, key_problem
from coke.pipeline.sources.keys import key_bytes

#: The function that checks an image, by the value of ``--check``.
CHECKS = {"decode": check, "header": check_header}


#: An image is dark when no 8-bit value of it is larger: 14 of 16 bits reach 63.
_DARK = 63
_MOSTLY = 0.99  # share of the converted images that have to be dark for a warning


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """Images to check.

    Attributes:
        source: the images.
        check: which of :data:`CHECKS`.
        settings: how images will be stored.
        hash_all: take the SHA-256 also of files that are stored byte for byte.
        entry: the file that will hold the result.
        must_exist: paths that this machine must see.
    """

    source: Source
    check: str
    hash_all: bool
    settings: StorageSettings
    entry: Path
    must_exist: tuple[Path, ...]


#: What the first pass finds out about an accepted image: height and width it will be stored with,
#: in pixels, whether byte for byte, its brightest value, whether EXIF turned it, CRC-32 and SHA-256
#: of its source file (zeros if not taken).
#: A row of zeros is of a rejected image.
VERDICT_DTYPE = np.dtype(
    [
        ("height", "<u2"),
        ("width", "<u2"),
        ("as_is", "?"),
        ("brightest", "u1"),
        ("turned", "?"),
        ("crc32", "<u4"),
        ("sha256", "u1", 32),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The results of the first pass for n images.

    Attributes:
        verdicts: (n,) of :data:`VERDICT_DTYPE`.
        problems: why an image is left out, by its position.
        unread: positions of images that could not be read, so that another time they may be.
        unanswered: how many of these are on the web, where no server answered.
        bytes: how many were read.
        resumed: images whose verdict an earlier run had found.
    """

    verdicts: NDArray[np.void]
    problems: dict[int, str]
    bytes: int
    unread: tuple[int, ...] = ()
    unanswered: int = 0
    resumed: int = 0

    def candidate(self, i: int) -> Candidate:
        """The facts needed to store accepted image ``i``."""
        row = self.verdicts[i]
        names = ("height", "width", "as_is", "brightest", "turned")
        verdict = Verdict(**{name: row[name].item() for name in names})
        return Candidate(verdict=verdict, crc32=int(row["crc32"]))

    @staticmethod
    def nothing(n: int) -> Checked:
        """Before ``n`` images were looked at."""
        return Checked(verdicts=np.zeros(n, VERDICT_DTYPE), problems={}, bytes=0)

    @staticmethod
    def joined(parts: Sequence[Checked]) -> Checked:
        """Verdicts of several runs of images as one."""
        problems, unread, first = {}, [], 0
        for part in parts:
            problems.update({first + i: problem for i, problem in part.problems.items()})
            unread += [first + i for i in part.unread]
            first += len(part.verdicts)
        return Checked(
            verdicts=np.concatenate([part.verdicts for part in parts]),
            problems=problems,
            bytes=sum(part.bytes for part in parts),
            unread=tuple(unread),
            unanswered=sum(part.unanswered for part in parts),
            resumed=sum(part.resumed for part in parts),
        )


def darkness(checked: Checked) -> str | None:
    """A warning where (nearly) all images that had to be encoded turned out dark; else None.

    So it is with images that use 10, 12 or 14 of 16 bits.
    """
    verdicts = checked.verdicts
    encoded = verdicts[(verdicts["height"] > 0) & ~verdicts["as_is"]]
    dark = int((encoded["brightest"] <= _DARK).sum())
    if dark == 0 or dark < _MOSTLY * len(encoded):
        return None
    return (
        f"{dark:,} of {len(encoded):,} converted images are dark throughout: no value above "
        f"{int(encoded['brightest'][encoded['brightest'] <= _DARK].max())} of 255. If they are "
        "16-bit images that use fewer bits, give --sixteen-bit 12 (or how many they use), or "
        "--sixteen-bit scale"
    )


def check_images(task: CheckTask) -> Checked:
    """Looks at images; for each what is needed to store it, or the reason why it cannot be.

    Raises:
        ValueError: this machine does not see the files.
        OSError: the journal cannot be written.
    """
    require_seen(task.must_exist)
    made_from = _fingerprint(task.source)
    found = journal.load(task.entry, made_from)
    if found is None:
        checked = _check(task, Checked.nothing(len(task.source)), range(len(task.source)))
    else:
        about, verdicts = found
        before = Checked(
            verdicts=verdicts,
            problems={int(i): problem for i, problem in about["problems"].items()},
            bytes=about["bytes"],
            resumed=len(verdicts) - len(about["unread"]),
        )
        if not about["unread"]:
            return before
        checked = _check(task, before, about["unread"])
    about = {"problems": checked.problems, "bytes": checked.bytes, "unread": checked.unread}
    journal.save(task.entry, made_from, about, checked.verdicts)
    return checked


def _check(task: CheckTask, before: Checked, positions: Iterable[int]) -> Checked:
    """What is known of a piece, with a fresh look at the images at some positions."""
    source, look = task.source, CHECKS[task.check]
    verdicts = before.verdicts.copy()
    problems = {i: why for i, why in before.problems.items() if i not in set(positions)}
    unread: list[int] = []
    size, unanswered = 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's; an image is either accepted or rejected
        for i in positions:
            if problem := key_problem(source.keys[i]):
                problems[i] = problem
                continue
            try:
                data = source.read(i)
                size += len(data)
                found = look(data, task.settings)
            except ConnectionError as error:
                # Nobody knows what the image is: leaving it out would move the ids after it.
                raise ValueError(
                    f"{source.describe(i)} cannot be read: {error.strerror or error}; run the same "
                    "command again when the storage answers"
                ) from error
            except RefusedError as error:  # asking again would not help
                problems[i] = f"cannot be read: {error.strerror}"
            except OSError as error:
                problems[i] = f"cannot be read: {error.strerror}"
                unread.append(i)
                unanswered += isinstance(error, NoAnswerError)
            except ValueError as error:
                problems[i] = str(error)
            else:
                row = verdicts[i]
                row["height"], row["width"] = found.height, found.width
                row["as_is"], row["brightest"] = found.as_is, found.brightest
                row["turned"] = found.turned
                row["crc32"] = zlib.crc32(data)
                if task.hash_all or not found.as_is:
                    row["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    return replace(
        before,
        verdicts=verdicts,
        problems=problems,
        bytes=before.bytes + size,
        unread=tuple(unread),
        unanswered=unanswered,
    )


def _fingerprint(source: Source) -> str:
    """Changes when a file does: sizes and modification times, without reading anything.

    Of files behind a URL nothing is known.
    """
    stamps = hashlib.sha256()
    for i, key in enumerate(source.keys):
        stamps.update(key_bytes(f"{key}\0{source.stamp(i)}\0"))
    return stamps.hexdigest()


def require_seen(paths: tuple[Path, ...]) -> None:
    """Raises ValueError where this machine does not see one of the paths."""
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"{path} does not exist on {socket.gethostname()}: machines that share an ingest "
                "need a file system that all of them see under the same path"
            )
