"""Where an export goes: all of its files appear, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from coke.files.durable import draft_of
from coke.files.kind import kind_of_files
from coke.files.publish import published
from coke.tools.export.card import MARKER
from coke.tools.export.formats.format import Format

FOLDER_CARD = "README.md"  # where hubs and editors look for a folder's text

#: Takes the bytes of files by name.
Put = Callable[[Mapping[str, bytes]], None]


def card_name(form: Format, out: Path) -> str:
    """Name of the model card: beside a file, or inside a folder."""
    return f"{out.name}.md" if form.suffixes else FOLDER_CARD


@contextmanager
def place_for(out: Path, form: Format, *, overwrite: bool) -> Iterator[Put]:
    """Gives a function that takes all files of an export, and the card.

    They appear at the end of the ``with`` block, or none does if anything goes wrong. OUT itself
    appears last, so that it is complete where it exists.

    Raises:
        ValueError: OUT has the suffix of something else, is taken, or cannot be written.
    """
    form.check_name(out)
    if form.suffixes:
        with _files(out, card_name(form, out), overwrite=overwrite) as put:
            yield put
        return
    kind = kind_of_files(
        f"export in the format {form.name}",
        marker=FOLDER_CARD,
        says=MARKER,
        files=form.files | {FOLDER_CARD},
    )
    with published(out, overwrite=overwrite, kind=kind) as folder:

        def put(contents: Mapping[str, bytes]) -> None:
            assert contents.keys() == contents.keys() & (form.files | {FOLDER_CARD})
            for name, data in contents.items():
                (folder / name).write_bytes(data)

        yield put


@contextmanager
def _files(out: Path, card: str, *, overwrite: bool) -> Iterator[Put]:
    _check_free(out, out.with_name(card), overwrite=overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            drafts = {out.name: stack.enter_context(draft_of(out))}  # the first in is the last out
            drafts[out.name].touch()  # fails now where nothing can be written

            def put(contents: Mapping[str, bytes]) -> None:
                for name, data in contents.items():
                    if name not in drafts:
                        drafts[name] = stack.enter_context(draft_of(out.with_name(name)))
                    drafts[name].write_bytes(data)

            yield put
    except OSError as error:
        raise ValueError(
            f"cannot write {out}: {error.strerror or error}; choose another place"
        ) from error


def _check_free(out: Path, card: Path, *, overwrite: bool) -> None:
    """Raises ValueError if OUT is taken, or its card's name by something else."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file in it")
    ours = card.is_file() and MARKER.encode() in card.read_bytes()
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; add --overwrite to replace it, or choose another name")
    if out.exists() and not ours:
        raise ValueError(
            f"{out} has no model card {card.name} of an export beside it, so --overwrite does not "
            "touch it; choose another name, or remove it yourself"
        )
    if card.exists() and not ours:
        raise ValueError(f"{card} exists, where the model card would be; choose another name")
