"""A picture of cluster sizes: how many clusters have which size, and where the bounds are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coke.clustering.sizes import SizeBounds

_WIDTH, _HEIGHT = 960, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 36, 92, 74  # margins around the plot
_FINER = 2  # drawn larger, then averaged down: smooth edges
_BINS = 48
_NAME = 100  # room for the name of a bound
_HEADROOM = 1.18  # above the highest bar, for the names of the bounds
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (33, 37, 41), (108, 117, 125), (233, 236, 239)
_BAR, _BOUND = (31, 119, 180), (214, 39, 40)


def size_histogram(
    sizes_K: NDArray[np.int64], bounds: SizeBounds, *, title: str | None = None
) -> Image.Image:
    """A histogram of cluster sizes, 960 x 540 pixels.

    Args:
        sizes_K: (K,) points of each cluster.
        bounds: what the sizes had to keep; drawn as dashed lines. A largest size far beyond all
            clusters is named in words, since the line would squeeze the bars.
        title: the first line; from the sizes when None.
    """
    edges, counts = bins_of(sizes_K, bounds)
    image = Image.new("RGB", (_WIDTH * _FINER, _HEIGHT * _FINER), _PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    top_count = max(int(counts.max()), 1) * _HEADROOM

    def x_of(size: float) -> float:
        return float(_LEFT + (size - edges[0]) / (edges[-1] - edges[0]) * (right - _LEFT))

    def y_of(count: float) -> float:
        return bottom - count / top_count * (bottom - _TOP)

    k, n = len(sizes_K), int(sizes_K.sum())
    pen.text((_LEFT, 22), title or f"Sizes of {k:,} clusters of {n:,} points", 20, _INK, "lt")
    pen.text((_LEFT, 52), _in_words(sizes_K, bounds), 14, _FAINT, "lt")
    for count in _ticks(0, top_count, 5):
        pen.line((_LEFT, y_of(count)), (right, y_of(count)), _GRID)
        pen.text((_LEFT - 10, y_of(count)), f"{count:,.0f}", 13, _FAINT, "rm")
    for left, after, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        if count:
            gap = 1.0 if x_of(after) - x_of(left) > 4 else 0.0
            pen.box(x_of(left) + gap / 2, y_of(count), x_of(after) - gap / 2, bottom, _BAR)
    pen.line((_LEFT, bottom), (right, bottom), _INK)
    for size in _ticks(float(edges[0]), float(edges[-1]), 8):
        pen.line((x_of(size), bottom), (x_of(size), bottom + 5), _INK)
        pen.text((x_of(size), bottom + 10), f"{size:,.0f}", 13, _FAINT, "mt")
    pen.text(((_LEFT + right) / 2, _HEIGHT - 20), "points in a cluster", 14, _INK, "mb")
    pen.sideways((18, (_TOP + bottom) / 2), "clusters", 14, image)
    for name, bound, at in _lines(bounds):
        if edges[0] <= at <= edges[-1]:
            pen.dashes(x_of(at), _TOP, bottom, _BOUND)
            # Outwards where there is room: the names of two close bounds do not overlap.
            to_left = (x_of(at) - _LEFT > _NAME) if name == "min" else (right - x_of(at) < _NAME)
            beside = x_of(at) + (-7 if to_left else 7)
            pen.text((beside, _TOP), f"{name} {bound:,.0f}", 14, _BOUND, "rt" if to_left else "lt")
    return image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


def bins_of(
    sizes_K: NDArray[np.int64], bounds: SizeBounds
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges (E + 1,) of bins of whole sizes, and clusters (E,) in each.

    The bins reach over all sizes and over the bounds near them.
    """
    smallest, largest = int(sizes_K.min()), int(sizes_K.max())
    first = min(smallest, int(bounds.lower)) if bounds.lower > 0.5 * smallest else smallest
    last = largest
    if not math.isinf(bounds.upper) and bounds.upper <= 1.5 * largest:
        last = max(last, int(bounds.upper))
    margin = max(1, (last - first) // 25)  # so that no bar and no line is at the very edge
    first, last = max(0, first - margin), last + margin
    step = max(1, -(-(last - first + 1) // _BINS))
    if bounds.lower > first:  # a bin begins at the bound, so that no bar reaches across it
        first = int(bounds.lower) - step * -(-(int(bounds.lower) - first) // step)
    # A size s is the middle of [s - 0.5, s + 0.5): no size is on an edge.
    edges = first - 0.5 + step * np.arange(-(-(last - first + 1) // step) + 1, dtype=np.float64)
    counts, _ = np.histogram(sizes_K, edges)
    return edges, counts.astype(np.int64)


def _lines(bounds: SizeBounds) -> list[tuple[str, float, float]]:
    """Names, bounds, and where to draw them: outside of the bars of sizes that are allowed."""
    lines = []
    if bounds.lower > 0:
        lines.append(("min", bounds.lower, bounds.lower - 0.5))
    if not math.isinf(bounds.upper):
        lines.append(("max", bounds.upper, bounds.upper + 0.5))
    return lines


def _in_words(sizes_K: NDArray[np.int64], bounds: SizeBounds) -> str:
    smallest, largest = int(sizes_K.min()), int(sizes_K.max())
    asked = [f"at least {bounds.lower:,.0f}"] if bounds.lower > 0 else []
    if not math.isinf(bounds.upper):
        asked.append(f"at most {bounds.upper:,.0f}")
    return (
        f"smallest {smallest:,}, median {float(np.median(sizes_K)):,.0f}, largest {largest:,}"
        f"  ·  asked for: {' and '.join(asked) or 'any size'}"
    )


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Whole round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    rough = max((high - low) / about, 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(1.0, next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


class _Pen:
    """Draws in the coordinates of the final picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def line(
        self, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int]
    ) -> None:
        points = [tuple(_FINER * v for v in start), tuple(_FINER * v for v in end)]
        self._draw.line(points, fill=colour, width=_FINER)

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]
    ) -> None:
        low = min(_FINER * top, _FINER * bottom - 2)  # one cluster among thousands still shows
        self._draw.rectangle((_FINER * left, low, _FINER * right - 1, _FINER * bottom), colour)

    def dashes(self, x: float, top: float, bottom: float, colour: tuple[int, int, int]) -> None:
        for y in np.arange(top, bottom, 9):
            end = min(y + 5, bottom)
            points = [(_FINER * x, _FINER * y), (_FINER * x, _FINER * end)]
            self._draw.line(points, fill=colour, width=_FINER * 2)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        points: int,
        colour: tuple[int, int, int],
        anchor: str,
    ) -> None:
        x, y = _FINER * at[0], _FINER * at[1]
        self._draw.text((x, y), text, fill=colour, font=_font(points), anchor=anchor)

    def sideways(
        self, center: tuple[float, float], text: str, points: int, image: Image.Image
    ) -> None:
        """Text from bottom to top."""
        font = _font(points)
        width, height = int(self._draw.textlength(text, font=font)) + 4, _FINER * (points + 6)
        strip = Image.new("RGB", (width, height), _PAPER)
        ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill=_INK, font=font, anchor="mm")
        turned = strip.rotate(90, expand=True)
        at = (
            int(_FINER * center[0] - turned.width / 2),
            int(_FINER * center[1] - turned.height / 2),
        )
        image.paste(turned, at)


def _font(points: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=points * _FINER)
