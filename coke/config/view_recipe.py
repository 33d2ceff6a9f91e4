"""View recipes: augmentation as data.

A recipe states distributions. :mod:`coke.pipeline.views.draw` draws the parameters of a batch from
them, which :mod:`coke.pipeline.views.dali` and :mod:`coke.pipeline.views.pil_reference` apply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SOLARIZE_THRESHOLD = 128  # grey level; as in PIL, BYOL and MoCo v3


@dataclass(frozen=True, kw_only=True)
class ViewRecipe:
    """One view: a crop resized to ``size``, then colour, blur, solarize, flip, normalisation.

    Attributes:
        size: side of the square view, in pixels.
        evaluation_size: side of the views that features are evaluated on; 0 for ``size``. Training
            on smaller views costs less, and objects in a random crop look as large as in a larger
            center crop.
        crop: ``"random"`` (area in ``scale``, aspect in ``ratio``) or ``"center"``.
        center_fraction: side of a center crop as a share of the shorter image side.
        jitter: largest brightness, contrast, saturation (relative) and hue (turns) change.
        exact_hue: rotate hue in HSV, as PIL and torchvision do, instead of YIQ, as DALI's operator
            does. A view takes half as long again on a CPU; docs/augmentation.md compares both.
        gray_p: probability of grayscale, after the jitter.
        blur_sigma: range of the Gaussian's sigma, in pixels of the view.
        solarize_p: probability of inverting values from :data:`SOLARIZE_THRESHOLD` on.
        mean, std: of the normalisation, per channel, in the scale 0..1.
    """

    size: int = 224
    evaluation_size: int = 0
    crop: str = "random"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    center_fraction: float = 0.875
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    exact_hue: bool = False
    gray_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    flip_p: float = 0.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"view size is {self.size}; it is in pixels and at least 8")
        if self.evaluation_size != 0 and self.evaluation_size < 8:
            raise ValueError(
                f"view evaluation_size is {self.evaluation_size}; it is 0 (as size) or at least 8"
            )
        if self.crop not in ("random", "center"):
            raise ValueError(f"view crop is {self.crop!r}; choose 'random' or 'center'")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"view scale is {self.scale}; give 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"view ratio is {self.ratio}; give 0 < low <= high")
        if not 0 < self.center_fraction <= 1:
            raise ValueError(f"view center_fraction is {self.center_fraction}; give 0 < f <= 1")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"view blur_sigma is {self.blur_sigma}; give 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"view std is {self.std}; all must be positive")
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"view jitter is {self.jitter}; all >= 0, and hue at most 0.5")
        for name in ("jitter_p", "gray_p", "blur_p", "solarize_p", "flip_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"view {name} is {getattr(self, name)}; it is a probability")

    @property
    def may_draw(self) -> frozenset[str]:
        """The stages after crop and resize that some image of this view needs: ``lighting``
        (brightness, contrast), ``colours`` (hue, saturation), ``blur``, ``solarize``.
        """
        jittered = [self.jitter_p > 0 and strength > 0 for strength in self.jitter]
        drawn = {
            "lighting": jittered[0] or jittered[1],
            "colours": jittered[2] or jittered[3] or self.gray_p > 0,
            "blur": self.blur_p > 0,
            "solarize": self.solarize_p > 0,
        }
        return frozenset(stage for stage, may in drawn.items() if may)

    def evaluation(self) -> ViewRecipe:
        """The view that features are evaluated on: a center crop and nothing random."""
        return replace(self.crop_and_flip(), crop="center", flip_p=0.0)

    def crop_and_flip(self) -> ViewRecipe:
        """Random crops and flips only: the training view of the linear protocol."""
        size = self.evaluation_size or self.size
        return replace(
            self, size=size, crop="random", jitter_p=0.0, gray_p=0.0, blur_p=0.0, solarize_p=0.0
        )


# The paper's recipes, as its authors released them.

#: One view: strong jitter, blur half of the time.
IMAGENET_SINGLE_VIEW = ViewRecipe()

_GENTLE = ViewRecipe(jitter=(0.4, 0.4, 0.2, 0.1))

#: The asymmetric pair: the first view is always blurred, the second seldom, but solarized at times.
IMAGENET_TWO_VIEW = (
    replace(_GENTLE, blur_p=1.0),
    replace(_GENTLE, blur_p=0.1, solarize_p=0.2),
)

#: The pair, and six small crops of smaller parts of the image.
IMAGENET_MULTICROP = (
    *IMAGENET_TWO_VIEW,
    *(replace(IMAGENET_SINGLE_VIEW, size=96, scale=(0.05, 0.6)),) * 6,
)

#: What each name on the command line stands for: one recipe per view.
NAMED_RECIPES: dict[str, tuple[ViewRecipe, ...]] = {
    "imagenet-1view": (IMAGENET_SINGLE_VIEW,),
    "imagenet-2views": IMAGENET_TWO_VIEW,
    "imagenet-multicrop": IMAGENET_MULTICROP,
}
