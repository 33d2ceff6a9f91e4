"""Backbones by name: the ResNets and ViTs of this package, or any network of timm."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import torch
from torch import nn

from coke.config.model import RESNET, TIMM, VIT, VIT_IMAGE_SIZE, ModelConfig
from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer


def build_backbone(config: ModelConfig) -> nn.Module:
    """A network without classifier: images (B, 3, S, S) -> pooled features, see
    :func:`feature_dim`.

    Its ``state_dict`` has the names and shapes of torchvision (ResNet), or of timm.

    Raises:
        ValueError: an unknown name or size, or timm is missing.
    """
    if config.backbone == RESNET:
        return ResNet(
            depth=config.depth, width=config.width, stem=config.stem, expand=config.expand
        )
    if config.backbone == VIT:
        return VisionTransformer(
            size=config.size,
            patch=config.patch,
            image_size=config.image_size or VIT_IMAGE_SIZE,
            pool=config.pool,
            drop_path=config.drop_path,
            freeze_patches=config.freeze_patches,
        )
    return _of_timm(config.backbone, config.image_size)


def _of_timm(backbone: str, image_size: int) -> nn.Module:
    timm = _import_timm(backbone)
    options = {"img_size": image_size} if image_size else {}
    try:
        net: nn.Module = timm.create_model(
            backbone.removeprefix(TIMM), num_classes=0, pretrained=False, **options
        )
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"timm cannot make model.backbone {backbone!r} with image_size {image_size}: {error}; "
            f"`python -c 'import timm; print(timm.list_models())'` lists its networks, and "
            "convolutional ones take no image_size"
        ) from error
    return net


def feature_dim(backbone: nn.Module) -> int:
    """Dimension of what the backbone gives for an image."""
    if isinstance(backbone, ResNet | VisionTransformer):
        return backbone.dim
    # Some networks of timm widen their features behind the pooling: that is what comes out.
    dim: int = getattr(backbone, "head_hidden_size", None) or backbone.num_features  # type: ignore[assignment]
    return dim


def fixed_image_size(backbone: nn.Module) -> int:
    """The only side of images that a backbone takes; 0 where it takes several."""
    patches = getattr(backbone, "patch_embed", None)
    if patches is None or not getattr(patches, "strict_img_size", False):
        return 0
    height, width = patches.img_size
    assert height == width, "a square was asked for"
    return int(height)


def _import_timm(backbone: str) -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        missing = f"model.backbone is {backbone!r}, but {error.name} is not installed; "
        commands = f"`{_torchvision_command()}`, then `pip install 'coke[timm]'`, bring it"
        raise ValueError(missing + commands) from error
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"model.backbone is {backbone!r}, but timm cannot be imported ({error}). If "
            f"torchvision was built for another torch than yours ({torch.__version__}), "
            f"`pip uninstall -y torchvision`, then `{_torchvision_command()}`, mend it"
        ) from error
    module: ModuleType = timm
    return module


def _torchvision_command() -> str:
    """Brings the torchvision of the installed torch. On PyPI there is one for one build only, and
    beside another it does not import.
    """
    version = torch.__version__
    build = version.partition("+")[2] or ("cpu" if torch.version.cuda is None else "")
    command = f"pip install torchvision torch=={version}"
    if sys.platform == "darwin" or not re.fullmatch(r"cpu|xpu|(cu|rocm)[\d.]+", build):
        return command
    return f"{command} --index-url https://download.pytorch.org/whl/{build}"
