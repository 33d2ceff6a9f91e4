"""View recipes by name and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.config.presets import presets
from coke.config.view_recipe import IMAGENET_MULTICROP, IMAGENET_TWO_VIEW, ViewRecipe
from coke.config.views import view_recipes


def test_views_by_name() -> None:
    assert view_recipes("imagenet-2views") == IMAGENET_TWO_VIEW
    assert view_recipes("cifar10") == (presets["cifar10"].data.view,)
    with pytest.raises(ValueError, match=r"'imagenet-3views'; choose one of demo, .*-2views, or"):
        view_recipes("imagenet-3views")


def test_the_multi_crop_recipe_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "views.toml").write_text(
        """
        [[view]]
        jitter = [0.4, 0.4, 0.2, 0.1]
        blur_p = 1
        [[view]]
        jitter = [0.4, 0.4, 0.2, 0.1]
        blur_p = 0.1
        solarize_p = 0.2
        [[view]]
        repeat = 6
        size = 96
        scale = [0.05, 0.6]
        """,
        encoding="utf-8",
    )
    views = view_recipes(tmp_path / "views.toml")
    assert views == IMAGENET_MULTICROP
    assert all(isinstance(view, ViewRecipe) for view in views)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[view]]\nblur = 1", r"unknown key 'blur' in view\[0\]; valid keys: size, .*, repeat"),
        ("[[view]]\n[[view]]\nsize = 'big'", r"'view\[1\]\.size' is 'big'; it must be int"),
        ("[[view]]\nblur_p = 2", "view blur_p is 2.0"),
        ("[[view]]\nrepeat = 0", r"view\[0\]\.repeat is 0"),
        ("size = 96", "unknown key 'size'; valid keys: view"),
        ("", r"has no \[\[view\]\] table"),
        ("view = [3]", r"view\[0\] is 3"),
        ("[view]\nsize = 96", r"has no \[\[view\]\] table"),
        ("[[view", "is not valid TOML"),
    ],
)
def test_bad_view_files_name_file_key_and_value(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "views.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"views\.toml.*" + message):
        view_recipes(tmp_path / "views.toml")
