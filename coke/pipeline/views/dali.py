"""A view recipe as a DALI graph: encoded bytes and drawn parameters in, views out.

The graph holds no randomness and no order, so it has no state to save. The same code builds it
for the CPU and the GPU; only the decoder differs (``cpu`` or ``mixed``).
"""

from __future__ import annotations

from typing import Any

from coke.config.view_recipe import SOLARIZE_THRESHOLD, ViewRecipe

try:
    from nvidia.dali import fn, math, pipeline_def, types
    from nvidia.dali.pipeline import Pipeline
except ImportError:  # the loader says what to install, or runs PIL (macOS)
    AVAILABLE = False
else:
    AVAILABLE = True

_TRUNCATION = 0.498  # Pillow truncates where DALI rounds: round(x - 0.498) is floor(x)


def views_pipeline(recipes: tuple[ViewRecipe, ...], on_gpu: bool, **options: Any) -> Pipeline:
    """The graph, one output per view; ``options`` are those of a DALI pipeline."""
    return _graph(recipes, on_gpu, **options)


if AVAILABLE:

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def _graph(recipes: tuple[ViewRecipe, ...], on_gpu: bool) -> Any:
        return augmented(recipes, on_gpu, decoded(on_gpu))

    def decoded(on_gpu: bool) -> Any:
        """The graph's first half: encoded bytes to pixels; on the CPU, only pixels of the crops."""
        encoded = _input("encoded", types.UINT8, ndim=1)
        if on_gpu:
            # Always the whole image: decoding a region is reported to crash the H100's decoder
            # (nvimgcodec 0.9).
            return fn.decoders.image(
                encoded, device="mixed", output_type=types.RGB, adjust_orientation=False
            )
        return fn.decoders.image_slice(
            encoded,
            _input("region_anchor", types.INT32, ndim=1),
            _input("region_shape", types.INT32, ndim=1),
            device="cpu",
            output_type=types.RGB,
            adjust_orientation=False,
            axes=[0, 1],
            normalized_anchor=False,
            normalized_shape=False,
        )

    def augmented(recipes: tuple[ViewRecipe, ...], on_gpu: bool, pixels: Any) -> Any:
        """The graph's second half: decoded pixels to views."""
        if len(recipes) == 1 and not on_gpu:  # the region is the crop: nothing to slice or copy
            return _view(recipes[0], 0, pixels)
        return tuple(_view(recipe, v, _crop(pixels, v)) for v, recipe in enumerate(recipes))

    def _input(name: str, dtype: Any, ndim: int) -> Any:
        return fn.external_source(name=name, device="cpu", dtype=dtype, ndim=ndim)

    def _crop(decoded: Any, v: int) -> Any:
        return fn.slice(
            decoded,
            _input(f"anchor_{v}", types.INT32, ndim=1),
            _input(f"shape_{v}", types.INT32, ndim=1),
            axes=[0, 1],
            normalized_anchor=False,
            normalized_shape=False,
        )

    def _view(recipe: ViewRecipe, v: int, crop: Any) -> Any:
        def factor(name: str) -> Any:
            return _input(f"{name}_{v}", types.FLOAT, ndim=0)

        stages = recipe.may_draw
        image = fn.resize(
            crop, size=[recipe.size, recipe.size], interp_type=types.INTERP_LINEAR, antialias=True
        )
        if "lighting" in stages:
            image = _lighting(image, factor("brightness"), factor("contrast"))
        if "colours" in stages and recipe.exact_hue:
            image = _exact_colours(
                image,
                channels=_input(f"hue_channels_{v}", types.INT32, ndim=1),
                mirrored=_input(f"hue_mirrored_{v}", types.BOOL, ndim=0),
                turn=_input(f"hue_turn_{v}", types.FLOAT, ndim=0),
                saturation=factor("saturation"),
            )
        elif "colours" in stages:
            image = _colours(image, factor("hue"), factor("saturation"))
        elif stages & {"blur", "solarize"}:
            image = fn.cast(image, dtype=types.FLOAT)
        if "blur" in stages:
            image = _blur(image, factor("blur_sigma"))
        if "solarize" in stages:
            image = _solarize(image, _input(f"solarize_{v}", types.BOOL, ndim=0))
        return fn.crop_mirror_normalize(
            image,
            mirror=_input(f"flip_{v}", types.INT32, ndim=0),
            mean=[255 * m for m in recipe.mean],
            std=[255 * s for s in recipe.std],
            output_layout="HWC",
            dtype=types.FLOAT,
        )

    def _lighting(image: Any, brightness: Any, contrast: Any) -> Any:
        if (brightness != 1.0) | (contrast != 1.0):
            # Two steps with uint8 between them, so that the first one clips as Pillow does.
            lit = fn.brightness_contrast(
                image, brightness=brightness, brightness_shift=-_TRUNCATION / 255
            )
            gray = fn.color_space_conversion(lit, image_type=types.RGB, output_type=types.GRAY)
            center = math.floor(fn.reductions.mean(gray) + 0.5)
            out = fn.brightness_contrast(
                lit,
                contrast=contrast,
                contrast_center=center.cpu(),
                brightness_shift=-_TRUNCATION / 255,
            )
        else:
            out = image
        return out

    def _colours(image: Any, hue: Any, saturation: Any) -> Any:
        """Hue in YIQ and saturation, in one pass: uint8 in, float out."""
        if (hue != 0.0) | (saturation != 1.0):
            out = _clamp(
                fn.color_twist(image, hue=hue, saturation=saturation, dtype=types.FLOAT), 0.0, 255.0
            )
        else:
            out = fn.cast(image, dtype=types.FLOAT)
        return out

    def _exact_colours(
        image: Any, *, channels: Any, mirrored: Any, turn: Any, saturation: Any
    ) -> Any:
        """Hue in HSV, then saturation: uint8 in, float out.

        Let (y0, y1, y2) be a pixel's channels, permuted by the turns of 120 degrees, and ``turn``
        in [0, 1] the rest of the angle, in units of 60 degrees. The rotation in HSV is then
        piecewise linear, without a division or a comparison: channel c becomes
        ``y(c) - y(c+1) + (2 turn - 1) y(c-1) + (1 - turn) (low + high)``, clamped to the pixel's
        own [low, high]. For a negative angle, c+1 and c-1 change places: y1 and y2 are swapped
        before and after.

        Each elementwise operator is a pass over a plane, so the cost is their number. The result
        stays float because a conversion to uint8, which rounds, costs as much as eight of them.
        """
        if (turn != 0.0) | (channels[0] != 0) | (saturation != 1.0):
            y0, y1, y2 = (image[:, :, channels[c]] for c in range(3))
            low = math.min(math.min(y0, y1), y2)
            high = math.max(math.max(y0, y1), y2)
            ends = (fn.cast(low, dtype=types.FLOAT) + high) * (1.0 - turn)
            q0, q1, q2 = (y * (turn * 2.0 - 1.0) for y in (y0, y1, y2))
            z0 = _clamp(q2 + y0 - y1 + ends, low, high)
            z1 = _clamp(q0 + y1 - y2 + ends, low, high)
            z2 = _clamp(q1 + y2 - y0 + ends, low, high)
            if mirrored:
                red, green, blue = z0, z2, z1
            else:
                red, green, blue = z0, z1, z2
            gray = (red * 0.299 + green * 0.587 + blue * 0.114) * (1.0 - saturation)
            out = fn.stack(
                _clamp(red * saturation + gray, 0.0, 255.0),
                _clamp(green * saturation + gray, 0.0, 255.0),
                _clamp(blue * saturation + gray, 0.0, 255.0),
                axis=2,
            )
            out = fn.reshape(out, layout="HWC")
        else:
            out = fn.cast(image, dtype=types.FLOAT)
        return out

    def _clamp(value: Any, low: Any, high: Any) -> Any:
        return math.min(math.max(value, low), high)  # math.clamp costs six times as much

    def _blur(image: Any, sigma: Any) -> Any:
        # A conditional: masking would blur every image and throw most results away. A sigma below
        # 0.25 moves no pixel by half a grey level (neighbours weigh 0.03 %).
        if sigma > 0.25:
            # The cost is linear in the window. 2.5 sigma to each side hold 98.8 % of the kernel,
            # which DALI renormalises; its default of 3 sigma costs a seventh more.
            radius = fn.cast(math.ceil(2.5 * sigma), dtype=types.INT32)
            out = fn.gaussian_blur(image, sigma=sigma, window_size=2 * radius + 1)
        else:
            out = image
        return out

    def _solarize(image: Any, solarize: Any) -> Any:
        if solarize:
            # Values of at least 128 are inverted: the smaller one of a value and its inverse.
            assert SOLARIZE_THRESHOLD == 128
            out = math.min(image, 255.0 - image)
        else:
            out = image
        return out
