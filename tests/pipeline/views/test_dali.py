"""DALI against the PIL reference, with equal parameters: a few grey levels at most."""

from __future__ import annotations

import colorsys
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.views import dali
from coke.pipeline.views.dali_views import DaliViews
from coke.pipeline.views.draw import ViewParameters, draw
from coke.pipeline.views.pil_reference import PilViews

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
    pixels: dict[str, Any] = {"mean": (0, 0, 0), "std": (1 / 255, 1 / 255, 1 / 255)}
    return ViewRecipe(size=size, **{"exact_hue": True, **pixels, **switches})


def parameters(
    sizes: list[tuple[int, int]] = SIZES,
    *,
    flip: int = 0,
    brightness: float = 1,
    contrast: float = 1,
    saturation: float = 1,
    hue_degrees: float = 0,
    blur_sigma: float = 0,
    solarize: int = 0,
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
        solarize=np.full(n, solarize, dtype=np.int32),
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


def complete(of: ViewRecipe) -> ViewRecipe:
    """A recipe that may draw everything, so that its graph has all stages."""
    jitter = (0.4, 0.4, 0.4, 0.1)
    return replace(of, jitter=jitter, jitter_p=1.0, gray_p=0.2, blur_p=0.5, solarize_p=0.2)


def build(*recipes: ViewRecipe) -> DaliViews:
    """Graphs with all stages, whatever the recipes draw."""
    views = [complete(of) for of in recipes]
    return DaliViews(views, batch_size=8, device="cpu", threads=1)


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


#: Each operation alone, then all of them: drawn values and the largest mean error, grey levels.
OPERATIONS: list[tuple[dict[str, float], float]] = [
    ({"brightness": 0.4}, 0.3),
    ({"brightness": 1.6}, 0.5),
    ({"contrast": 0.4}, 0.3),
    ({"contrast": 1.6}, 0.5),
    ({"saturation": 0.0}, 0.7),  # grayscale
    ({"saturation": 0.4}, 0.9),
    ({"saturation": 1.6}, 1.1),
    *(({"hue_degrees": float(d)}, 1.3) for d in (-170, -72, -20, 20, 72, 100, 170)),
    ({"blur_sigma": 0.1}, 0.3),
    ({"blur_sigma": 0.5}, 1.0),
    ({"blur_sigma": 1.0}, 1.0),
    ({"blur_sigma": 2.0}, 1.0),
    ({"solarize": 1}, 0.4),
    ({"brightness": 1.3, "contrast": 0.6, "saturation": 1.4, "hue_degrees": 50}, 1.3),
    ({"brightness": 0.7, "contrast": 1.4, "saturation": 0.6, "hue_degrees": -50}, 1.3),
    (
        {
            "brightness": 1.2,
            "contrast": 1.2,
            "saturation": 1.3,
            "hue_degrees": -30,
            "blur_sigma": 1.0,
            "solarize": 1,
            "flip": 1,
        },
        1.7,
    ),
]
each_operation = pytest.mark.parametrize(
    ("drawn_values", "tolerance"),
    OPERATIONS,
    ids=["+".join(f"{name}={value}" for name, value in o.items()) for o, _ in OPERATIONS],
)


@each_operation
def test_each_operation_is_the_references(
    engine: DaliViews, drawn_values: dict[str, Any], tolerance: float
) -> None:
    error = errors(engine, parameters(**drawn_values))
    assert error.mean() < tolerance
    assert error.max() <= 12


def test_grayscale_has_equal_channels(engine: DaliViews) -> None:
    (view,) = one_batch(engine, ENCODED, parameters(saturation=0, hue_degrees=40))
    assert (view.amax(1) - view.amin(1)).max() < 0.01


def test_blur_has_the_asked_width() -> None:
    """An edge after a Gaussian of sigma 2: 200 times the normal distribution function."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:] = 200
    (view,) = one_batch(build(recipe()), [jpeg(pixels)], parameters([(32, 32)], blur_sigma=2))
    # Phi(0.25), Phi(0.75), Phi(1.25), Phi(1.75): half, one and a half, ... pixels past the edge.
    np.testing.assert_allclose(view[0, 0, 16, 16:20], [119.7, 154.7, 178.9, 192.0], atol=4)


def test_contrast_pivots_at_the_images_own_mean(engine: DaliViews) -> None:
    """Half red 200, half black: luma 59.8 and 0, mean 29.9, rounded to 30; 30 + 0.5 (x - 30)."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:, 0] = 200
    (view,) = one_batch(engine, [jpeg(pixels)], parameters([(32, 32)], contrast=0.5))
    np.testing.assert_allclose(view[0, :, 16, 4], [15, 15, 15], atol=1)
    np.testing.assert_allclose(view[0, :, 16, 28], [115, 15, 15], atol=2)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (60, (160, 160, 60)),  # red -> yellow -> green -> cyan -> blue -> magenta
        (120, (60, 160, 60)),
        (180, (60, 160, 160)),
        (-60, (160, 60, 160)),
        (-120, (60, 60, 160)),
        (30, (160, 110, 60)),  # half way to yellow
        (-90, (110, 60, 160)),  # half way from magenta to blue
        (0.5, (160, 60.8, 60)),
    ],
)
def test_hue_turns_in_hsv(
    engine: DaliViews, degrees: float, expected: tuple[float, float, float]
) -> None:
    red = jpeg(np.full((32, 32, 3), (160, 60, 60), dtype=np.uint8))
    (view,) = one_batch(engine, [red], parameters([(32, 32)], hue_degrees=degrees))
    np.testing.assert_allclose(view[0, :, 16, 16], expected, atol=1.6)


def test_hue_agrees_with_the_standard_librarys_hsv(engine: DaliViews) -> None:
    """PIL counts hue in steps of 1.4 degrees; colorsys does not."""
    (before,) = one_batch(engine, ENCODED, parameters())
    for degrees in (-149.0, -61.3, -3.7, 27.0, 89.0, 133.0):
        (after,) = one_batch(engine, ENCODED, parameters(hue_degrees=degrees))
        for place in ((0, 3, 5), (1, 20, 9), (2, 30, 30), (3, 16, 2)):
            image, y, x = place
            h, s, v = colorsys.rgb_to_hsv(*(before[image, :, y, x] / 255).tolist())
            expected = [255 * c for c in colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)]
            np.testing.assert_allclose(after[image, :, y, x], expected, atol=0.01)


def test_solarize_inverts_from_128_on(engine: DaliViews) -> None:
    for level, expected in ((40, 40), (127, 127), (128, 127), (129, 126), (250, 5)):
        flat = jpeg(np.full((32, 32, 3), level, dtype=np.uint8))
        (view,) = one_batch(engine, [flat], parameters([(32, 32)], solarize=1))
        np.testing.assert_allclose(view[0, :, 5, 5], expected, atol=0.01)


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
    # Each decodes only what its crops need; pixels may differ by what the decoder rounds.
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


@pytest.fixture(scope="module")
def photos(test_data: Path) -> tuple[list[Bytes], list[tuple[int, int]]]:
    """32 photos, a gray one among them, and their sizes."""
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
    return encoded, sizes


@pytest.fixture(scope="module")
def photo_engine() -> DaliViews:
    return DaliViews([complete(recipe(112))], batch_size=32, device="cpu", threads=2)


@pytest.mark.data
def test_crop_and_resize_of_photos(
    photo_engine: DaliViews, photos: tuple[list[Bytes], list[tuple[int, int]]]
) -> None:
    encoded, sizes = photos
    error = errors(photo_engine, drawn(recipe(112, flip_p=0.5), sizes), encoded)
    assert error.mean() < 0.4  # measured: 0.15
    assert error.mean(axis=(1, 2, 3)).max() < 1.5


@pytest.mark.data
@each_operation
def test_each_operation_on_photos(
    photo_engine: DaliViews,
    photos: tuple[list[Bytes], list[tuple[int, int]]],
    drawn_values: dict[str, Any],
    tolerance: float,
) -> None:
    encoded, sizes = photos[0][:8], photos[1][:8]
    error = errors(photo_engine, parameters(sizes, **drawn_values), encoded)
    assert error.mean() < tolerance
    assert np.percentile(error, 99) < 7


@pytest.mark.gpu
@each_operation
def test_the_gpu_graph_is_the_cpu_graph(
    engine: DaliViews, drawn_values: dict[str, Any], tolerance: float
) -> None:
    """The same operators on the other device; only the decoder is another one."""
    on_gpu = DaliViews(engine.recipes, batch_size=8, device="cuda", threads=1)
    each = parameters(**drawn_values)
    (got,), (expected,) = one_batch(on_gpu, ENCODED, each), one_batch(engine, ENCODED, each)
    assert got.is_cuda
    error = (got.cpu() - expected).abs()
    assert error.mean() < 0.7 and error.max() <= 12


@pytest.mark.gpu
def test_views_of_several_sizes_on_the_gpu() -> None:
    recipes = (recipe(32), recipe(16), recipe(16))
    each = [drawn(r, SIZES, view=v) for v, r in enumerate(recipes)]
    on_gpu = DaliViews(tuple(map(complete, recipes)), batch_size=8, device="cuda", threads=1)
    got = one_batch(on_gpu, ENCODED, *each)
    expected = one_batch(build(*recipes), ENCODED, *each)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert (a.cpu() - b).abs().mean() < 0.7


def test_without_exact_hue_only_hue_differs_from_the_reference() -> None:
    fast = build(recipe(exact_hue=False))
    assert errors(fast, parameters(saturation=0)).mean() < 1
    assert errors(fast, parameters(saturation=1.6)).mean() < 1
    assert errors(fast, parameters(brightness=1.3, contrast=0.6, saturation=0.5)).mean() < 1.5
    turned = parameters(hue_degrees=60)
    (reference,) = one_batch(PilViews(fast.recipes), ENCODED, turned)
    (unturned,) = one_batch(fast, ENCODED, parameters())
    # Another rotation of the same colours: nearer to the reference than not turning at all.
    error = errors(fast, turned).mean()
    assert 1 < error < 0.7 * (unturned - reference).abs().mean()


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"jitter_p": 0.8},
        {"jitter_p": 0.8, "jitter": (0.4, 0.4, 0.0, 0.0)},
        {"gray_p": 0.5},
        {"blur_p": 0.5},
        {"jitter_p": 0.8, "jitter": (0.0, 0.0, 0.0, 0.1), "solarize_p": 0.5},
    ],
)
@pytest.mark.parametrize("views", [1, 2])
def test_a_graph_without_the_stages_it_never_draws_gives_the_same(
    switches: dict[str, Any], views: int
) -> None:
    of = replace(recipe(flip_p=0.5), **switches)
    each = [drawn(of, SIZES, epoch=1, view=v) for v in range(views)]
    small = DaliViews([of] * views, batch_size=8, device="cpu", threads=1)
    for a, b in zip(
        one_batch(small, ENCODED, *each),
        one_batch(build(*[of] * views), ENCODED, *each),
        strict=True,
    ):
        assert torch.equal(a, b)
