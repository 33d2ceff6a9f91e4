"""DALI against the PIL reference, with equal parameters: a few grey levels at most."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coke.pipeline import dali
from coke.pipeline.dali import DaliViews
from coke.pipeline.pil_reference import PilViews
from coke.pipeline.recipe import ViewParameters, ViewRecipe, draw

pytestmark = pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")

Bytes = NDArray[np.uint8]
SIZES = [(60, 80), (90, 50), (64, 64), (200, 300)]


def smooth(height: int, width: int, phase: float) -> NDArray[np.uint8]:
    """An image without edges: decoders and filters then agree to a grey level or two."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = (np.sin(4 * x + 2 * y + phase), np.cos(3 * y - 2 * x), np.sin(3 * (x + y) + phase))
    return np.stack([128 + 80 * wave for wave in waves], -1).round().astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> Bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


ENCODED = [jpeg(smooth(h, w, i)) for i, (h, w) in enumerate(SIZES)]


def recipe(size: int = 32, **options: float) -> ViewRecipe:
    """Nothing but crop, resize and flip unless asked; pixels are grey levels 0..255."""
    switches = {"jitter_p": 0.0, "gray_p": 0.0, "blur_p": 0.0} | options
    return ViewRecipe(size=size, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255), **switches)  # type: ignore[arg-type]


def parameters(
    sizes: list[tuple[int, int]] = SIZES,
    *,
    flip: int = 0,
    brightness: float = 1,
    contrast: float = 1,
    saturation: float = 1,
    hue_degrees: float = 0,
    blur_sigma: float = 0,
) -> ViewParameters:
    """Whole images, all with the same colours."""
    n = len(sizes)

    def real(value: float) -> NDArray[np.float32]:
        return np.full(n, value, dtype=np.float32)

    zeros = np.zeros(n, dtype=np.int32)
    return ViewParameters(
        top=zeros,
        left=zeros,
        height=np.array([h for h, _ in sizes], dtype=np.int32),
        width=np.array([w for _, w in sizes], dtype=np.int32),
        flip=np.full(n, flip, dtype=np.int32),
        brightness=real(brightness),
        contrast=real(contrast),
        saturation=real(saturation),
        hue_degrees=real(hue_degrees),
        blur_sigma=real(blur_sigma),
    )


def drawn(
    of: ViewRecipe, sizes: list[tuple[int, int]], *, epoch: int = 0, view: int = 0
) -> ViewParameters:
    return draw(
        of,
        seed=0,
        epoch=epoch,
        view=view,
        ids=np.arange(len(sizes)),
        heights=np.array([h for h, _ in sizes]),
        widths=np.array([w for _, w in sizes]),
    )


def build(*recipes: ViewRecipe) -> DaliViews:
    return DaliViews(recipes, batch_size=8, device="cpu", threads=1)


@pytest.fixture(scope="module")
def engine() -> DaliViews:
    return build(recipe())


def one_batch(
    of: DaliViews | PilViews, encoded: list[Bytes], *each: ViewParameters
) -> list[Tensor]:
    (views,) = of.stream(iter([(encoded, list(each))]))
    return views


def errors(
    engine: DaliViews, each: ViewParameters, encoded: list[Bytes] = ENCODED
) -> NDArray[np.float32]:
    """Absolute differences from the reference (B, 3, S, S), in grey levels."""
    (got,) = one_batch(engine, encoded, each)
    (expected,) = one_batch(PilViews(engine.recipes), encoded, each)
    assert got.shape == expected.shape and got.dtype == expected.dtype == torch.float32
    difference: NDArray[np.float32] = (got - expected).abs().numpy()
    return difference


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_crop_resize_flip(engine: DaliViews, epoch: int) -> None:
    each = drawn(recipe(), SIZES, epoch=epoch)
    assert (each.top > 0).any() and (each.left > 0).any()
    error = errors(engine, each)
    assert error.mean() < 0.5  # measured: 0.2
    assert error.max() <= 3


@pytest.mark.parametrize("flip", [0, 1])
def test_flip(engine: DaliViews, flip: int) -> None:
    each, other = parameters(flip=flip), parameters(flip=1 - flip)
    assert errors(engine, each).mean() < 0.5
    (a,), (b,) = one_batch(engine, ENCODED, each), one_batch(engine, ENCODED, other)
    torch.testing.assert_close(a.flip(3), b, atol=1e-3, rtol=0)
    assert (a - b).abs().mean() > 10  # these images are not symmetric


@pytest.mark.parametrize("brightness", [0.4, 0.8, 1.3])
def test_brightness(engine: DaliViews, brightness: float) -> None:
    error = errors(engine, parameters(brightness=brightness))
    assert error.mean() < 1 and error.max() <= 3  # measured: 0.5


@pytest.mark.parametrize("saturation", [0.0, 0.5, 1.3])
def test_grayscale_and_saturation(engine: DaliViews, saturation: float) -> None:
    each = parameters(saturation=saturation)
    error = errors(engine, each)
    assert error.mean() < 1 and error.max() <= 4  # measured: 0.3
    if saturation == 0:
        (view,) = one_batch(engine, ENCODED, each)
        assert (view.amax(1) - view.amin(1)).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur(engine: DaliViews, sigma: float) -> None:
    assert errors(engine, parameters(blur_sigma=sigma)).mean() < 1.5  # measured: up to 0.75


def test_blur_has_the_asked_width() -> None:
    """An edge after a Gaussian of sigma 2: 200 times the normal distribution function."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:] = 200
    (view,) = one_batch(build(recipe()), [jpeg(pixels)], parameters([(32, 32)], blur_sigma=2))
    # Phi(0.25), Phi(0.75), Phi(1.25), Phi(1.75): half, one and a half, ... pixels past the edge.
    np.testing.assert_allclose(view[0, 0, 16, 16:20], [119.7, 154.7, 178.9, 192.0], atol=4)


def test_contrast_pivots_at_mid_gray(engine: DaliViews) -> None:
    """Unlike the reference, which pivots at the image's mean: 128 + c * (x - 128)."""
    (plain,) = one_batch(engine, ENCODED, parameters())
    (view,) = one_batch(engine, ENCODED, parameters(contrast=0.5))
    torch.testing.assert_close(view, 128 + 0.5 * (plain - 128), atol=1.5, rtol=0)


def test_hue_turns_red_towards_green(engine: DaliViews) -> None:
    red = jpeg(np.full((32, 32, 3), (160, 60, 60), dtype=np.uint8))
    for degrees, strongest in ((0, 0), (120, 1), (-120, 2)):
        each = parameters([(32, 32)], hue_degrees=degrees)
        (view,) = one_batch(engine, [red], each)
        mean = view.mean((0, 2, 3))
        assert mean.argmax() == strongest
        luma = torch.tensor([0.299, 0.587, 0.114]) @ mean
        assert abs(float(luma) - 89.9) < 3  # a hue rotation keeps the luma of (160, 60, 60)


def test_the_identity_view_is_the_decoded_image() -> None:
    pixels = smooth(32, 32, 0.5)
    data = jpeg(pixels)
    (view,) = one_batch(build(recipe()), [data], parameters([(32, 32)]))
    decoded = np.asarray(Image.open(io.BytesIO(data.tobytes())))
    assert np.abs(view[0].permute(1, 2, 0).numpy() - decoded).max() <= 1


def test_normalisation() -> None:
    gray = jpeg(np.full((16, 16, 3), 51, dtype=np.uint8))
    normalised = ViewRecipe(size=8, mean=(0.0, 0.2, 0.1), std=(1.0, 1.0, 0.5))
    (view,) = one_batch(build(normalised), [gray], parameters([(16, 16)]))
    expected = torch.tensor([0.2, 0.0, 0.2])[:, None, None].expand(3, 8, 8)
    torch.testing.assert_close(view[0], expected, atol=0.008, rtol=0)  # 51 +- 1 grey levels


@pytest.mark.parametrize("side", [(1, 500), (500, 1), (1, 1)])
def test_extreme_images(engine: DaliViews, side: tuple[int, int]) -> None:
    data = jpeg(np.full((*side, 3), (90, 120, 150), dtype=np.uint8))
    each = drawn(recipe(), [side])
    (view,) = one_batch(engine, [data], each)
    assert view.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(view.mean((0, 2, 3)), [90, 120, 150], atol=2)


def test_gray_jpegs_become_three_channels(engine: DaliViews) -> None:
    data = jpeg(smooth(64, 64, 0)[..., 0])
    each = parameters([(64, 64)])
    assert errors(engine, each, [data]).mean() < 0.5
    (view,) = one_batch(engine, [data], each)
    assert torch.equal(view[:, 0], view[:, 1]) and torch.equal(view[:, 0], view[:, 2])


def test_views_are_independent_and_share_one_decode() -> None:
    small, large = recipe(16), recipe(32)
    both = build(small, large)
    a, b = drawn(small, SIZES, view=0), drawn(large, SIZES, view=1)
    first, second = one_batch(both, ENCODED, a, b)
    assert first.shape == (4, 3, 16, 16) and second.shape == (4, 3, 32, 32)
    # A single view decodes only its crop; the pixels may differ by what the decoder rounds.
    assert (first - one_batch(build(small), ENCODED, a)[0]).abs().mean() < 0.5
    assert (second - one_batch(build(large), ENCODED, b)[0]).abs().mean() < 0.5


def test_mixed_switches_in_one_batch(engine: DaliViews) -> None:
    """Colour and blur are conditionals per image: each image gets its own and nobody else's."""
    each = parameters()
    each.brightness[1] = 0.5
    each.blur_sigma[2] = 2.0
    each.saturation[3] = 0.0
    (mixed,) = one_batch(engine, ENCODED, each)
    for row, alone in enumerate(
        [
            parameters(),
            parameters(brightness=0.5),
            parameters(blur_sigma=2),
            parameters(saturation=0),
        ]
    ):
        (expected,) = one_batch(engine, ENCODED, alone)
        assert torch.equal(mixed[row], expected[row])


def test_batches_may_change_size(engine: DaliViews) -> None:
    whole = parameters()
    (expected,) = one_batch(engine, ENCODED, whole)

    def batches() -> Iterator[tuple[list[Bytes], list[ViewParameters]]]:
        for rows in ([0, 1, 2], [3], [2, 0], [1]):
            part = ViewParameters(**{name: value[rows] for name, value in vars(whole).items()})
            yield [ENCODED[i] for i in rows], [part]

    got = [views[0] for views in engine.stream(batches())]
    for views, rows in zip(got, ([0, 1, 2], [3], [2, 0], [1]), strict=True):
        assert torch.equal(views, expected[rows])


def test_leaving_early_leaves_nothing_behind(engine: DaliViews) -> None:
    def batches(brightness: float) -> Iterator[tuple[list[Bytes], list[ViewParameters]]]:
        for _ in range(5):
            yield ENCODED, [parameters(brightness=brightness)]

    (expected,) = one_batch(engine, ENCODED, parameters(brightness=0.5))
    for taken in (0, 1, 2, 3, 4):
        stream = engine.stream(batches(1.0))
        for _ in range(taken):
            next(stream)
        del stream
        after = [views[0] for views in engine.stream(batches(0.5))]
        assert len(after) == 5
        assert all(torch.equal(views, expected) for views in after)


def test_outputs_are_ours_and_channels_last(engine: DaliViews) -> None:
    """DALI reuses its buffers: a batch must not change when later ones are made."""
    stream = engine.stream(iter([(ENCODED, [parameters(brightness=b)]) for b in (1, 0.2, 0.5, 0)]))
    (first,) = next(stream)
    copy = first.clone()
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert not first.is_contiguous()
    assert len(list(stream)) == 3
    assert torch.equal(first, copy)


def test_nothing_fed_gives_nothing(engine: DaliViews) -> None:
    assert list(engine.stream(iter([]))) == []


@pytest.mark.data
def test_real_photos(test_data: Path) -> None:
    """32 photos, a gray one among them, through crop, resize and flip."""
    encoded: list[Bytes] = []
    sizes: list[tuple[int, int]] = []
    gray = 0
    with tarfile.open(test_data / "imagenet-sample.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".JPEG"):
                continue
            data = file.read()
            image = Image.open(io.BytesIO(data))
            if len(encoded) < 31 or image.mode == "L":
                gray += image.mode == "L"
                encoded.append(np.frombuffer(data, dtype=np.uint8))
                sizes.append((image.height, image.width))
            if len(encoded) == 32:
                break
    assert len(encoded) == 32 and gray >= 1
    photos = recipe(224, flip_p=0.5)
    engine = DaliViews([photos], batch_size=32, device="cpu", threads=2)
    error = errors(engine, drawn(photos, sizes), encoded)
    assert error.mean() < 0.4  # measured: 0.17
    assert error.mean(axis=(1, 2, 3)).max() < 1.5
