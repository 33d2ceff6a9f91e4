"""A contact sheet: a row per image, with the image and the views that training would see."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.images.pixel_limit import no_pixel_limit
from coke.pipeline.loading.loader import Batch, build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.views.draw import draw

_GAP = 8  # pixels between cells
_CAPTION = 16  # pixels of a line of text
_LEAST_SIDE = 96  # smaller cells are enlarged by a whole factor
_PAPER, _INK = (250, 250, 250), (30, 30, 30)  # RGB
#: RGB colours of the views: each frames its view, and outlines the crop in the original.
_COLOURS = (
    (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14),
    (148, 103, 189), (23, 190, 207), (227, 119, 194), (140, 86, 75),
)  # fmt: skip


def contact_sheet(
    index: ImageIndex,
    recipes: Sequence[ViewRecipe],
    *,
    images: int = 8,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    backend: str = "auto",
) -> Image.Image:
    """A row per image: the original with the outlines of its crops, then its views.

    The loader makes the views, so that they are the views that training with this seed sees in
    these epochs. Only the normalisation is undone. Images are spread evenly over the data set.

    Args:
        index: the data set.
        recipes: one per view.
        images: number of rows; fewer where the data set has fewer images.
        seed, epoch: the views are a function of both.
        epochs: number of epochs whose views stand side by side, ``epoch`` first.
        backend: as in :func:`build_loader`.

    Raises:
        ValueError: an argument is out of range, or a record cannot be decoded.
    """
    for name, value, least in (("images", images, 1), ("epochs", epochs, 1), ("epoch", epoch, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    loader = build_loader(
        index, recipes, batch_size=1, seed=seed, shuffle=False, threads=1, backend=backend
    )
    n = loader.samples_per_epoch
    if n == 0:
        raise ValueError(f"{index.folder} holds no image; there is nothing to show")
    positions = np.linspace(0, n - 1, min(images, n)).round().astype(np.int64).tolist()
    shown = range(epoch, epoch + epochs)
    rows = [[next(loader.epoch(e, start=position)) for e in shown] for position in positions]
    return _sheet(index, tuple(recipes), rows, seed, epoch)


def _sheet(
    index: ImageIndex,
    recipes: tuple[ViewRecipe, ...],
    rows: list[list[Batch]],
    seed: int,
    epoch: int,
) -> Image.Image:
    largest = max(recipe.size for recipe in recipes)
    zoom = max(1, -(-_LEAST_SIDE // largest))
    side = zoom * largest
    widths = [side, *(zoom * recipe.size for _ in rows[0] for recipe in recipes)]
    lefts = _GAP + np.cumsum([0] + [width + _GAP for width in widths])[:-1]
    row_height = side + _CAPTION + _GAP
    sheet = Image.new(
        "RGB",
        (int(lefts[-1]) + widths[-1] + _GAP, _GAP + _CAPTION + len(rows) * row_height),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    titles = ["original", *(_title(recipes, v, epoch + e) for e in range(len(rows[0]))
                            for v in range(len(recipes)))]  # fmt: skip
    for left, width, title in zip(lefts.tolist(), widths, titles, strict=True):
        _write(pen, (left, _GAP // 2), title, width)
    reader = RecordReader(index)
    for number, batches in enumerate(rows):
        image_id = int(batches[0].ids[0])
        top = _GAP + _CAPTION + number * row_height
        original = _original(index, reader, image_id)
        sheet.paste(_outlined(original, recipes, image_id, seed, epoch, side), (_GAP, top))
        _write(pen, (_GAP, top + side), _caption(index, image_id), side)
        cells = [(v, view) for batch in batches for v, view in enumerate(batch.views)]
        for left, (v, view) in zip(lefts[1:].tolist(), cells, strict=True):
            picture = Image.fromarray(denormalised(view[0], recipes[v]))
            picture = picture.resize((picture.width * zoom,) * 2, Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            right, bottom = left + picture.width, top + picture.height
            pen.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=_colour(v), width=2)
    return sheet


def denormalised(view: Tensor, recipe: ViewRecipe) -> NDArray[np.uint8]:
    """The pixels (S, S, 3) of a normalised view (3, S, S)."""
    pixels = view.cpu().permute(1, 2, 0).numpy() * np.array(recipe.std) + np.array(recipe.mean)
    grey_levels: NDArray[np.uint8] = (255 * pixels).round().clip(0, 255).astype(np.uint8)
    return grey_levels


def _original(index: ImageIndex, reader: RecordReader, image_id: int) -> Image.Image:
    (stored,) = reader.read([image_id])
    row = index.rows[image_id]
    if row["encoding"] == RAW_RGB:
        return Image.fromarray(np.asarray(stored).reshape(int(row["height"]), int(row["width"]), 3))
    with no_pixel_limit():
        return Image.open(io.BytesIO(stored.tobytes())).convert("RGB")


def _outlined(
    original: Image.Image,
    recipes: tuple[ViewRecipe, ...],
    image_id: int,
    seed: int,
    epoch: int,
    side: int,
) -> Image.Image:
    """The original, fitted into a square, with the outline of each view's crop in ``epoch``."""
    scale = side / max(original.size)
    fitted = original.resize((max(round(original.width * scale), 1),
                              max(round(original.height * scale), 1)))  # fmt: skip
    cell = Image.new("RGB", (side, side), _PAPER)
    cell.paste(fitted)
    pen = ImageDraw.Draw(cell)
    for v, recipe in enumerate(recipes):
        p = draw(
            recipe,
            seed=seed,
            epoch=epoch,
            view=v,
            ids=np.array([image_id]),
            heights=np.array([original.height]),
            widths=np.array([original.width]),
        )
        top, left = int(p.top[0]), int(p.left[0])
        box = (left, top, left + int(p.width[0]), top + int(p.height[0]))
        x0, y0, x1, y1 = (round(edge * scale) for edge in box)
        pen.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=_colour(v), width=2)
    return cell


def _title(recipes: tuple[ViewRecipe, ...], v: int, epoch: int) -> str:
    return f"view {v + 1}, {recipes[v].size} px, epoch {epoch}"


def _caption(index: ImageIndex, image_id: int) -> str:
    label = int(index.rows["label"][image_id])
    name = index.manifest.classes[label] if label >= 0 else index.keys[image_id]
    return f"id {image_id}: {name}"


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int) -> None:
    """Writes text, and leaves out the end that would run into the next cell."""
    font = ImageFont.load_default()
    while text and pen.textlength(text, font=font) > width:
        text = text[:-1]
    pen.text(at, text, fill=_INK, font=font)


def _colour(view: int) -> tuple[int, int, int]:
    return _COLOURS[view % len(_COLOURS)]
