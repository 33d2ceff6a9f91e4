"""Options that change how a network computes must not change the result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from coke.config.model import ModelConfig
from coke.model.activation_checkpointing import checkpoint_activations
from coke.model.coke_model import CoKe, build_model
from coke.model.replica import replicate, without_averaging

CPU = torch.device("cpu")
SMALL = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8)


def first(outputs: object) -> Tensor:
    """The first tensor of what a model returns."""
    while not isinstance(outputs, Tensor):
        assert isinstance(outputs, list | tuple)
        outputs = outputs[0]
    return outputs


def passed(model: CoKe, network: nn.Module, **_: object) -> list[Tensor]:
    """Features, gradients and batch norm's statistics of one pass."""
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features_BD = first(network([images]))
    weights = torch.arange(features_BD.numel()).view_as(features_BD) / 10
    (features_BD * weights).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [features_BD.detach(), *gradients, *model.buffers()]


def replicated(**options: bool) -> tuple[list[Tensor], CoKe]:
    model = build_model(SMALL, 0)
    network = replicate(model, CPU, **options)
    assert network is model, "one rank needs nothing around its model"
    return passed(model, network), model


def test_checkpointed_activations_change_nothing() -> None:
    plain, _ = replicated()
    saving, model = replicated(checkpoint=True)
    assert len(plain) == len(saving)
    for a, b in zip(plain, saving, strict=True):
        assert torch.equal(a, b)
    assert model.state_dict().keys() == build_model(SMALL, 0).state_dict().keys()
    assert checkpoint_activations(build_model(SMALL, 0)) == 4


def test_a_backbone_without_blocks_says_what_else_saves_memory() -> None:
    with pytest.raises(
        ValueError, match="no blocks to checkpoint: .* --set optimizer.accumulate=2"
    ):
        checkpoint_activations(nn.Linear(2, 2))


def test_memory_layout_is_an_option() -> None:
    plain, model = replicated(channels_last=False)
    assert model.get_parameter("backbone.conv1.weight").is_contiguous()
    other, model = replicated(channels_last=True)
    weight = model.get_parameter("backbone.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(plain, other, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.slow
def test_compiled_it_computes_the_same_under_the_same_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backend `eager` runs the captured graph as it is; generating code would take minutes."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="eager"))
    plain, _ = replicated()
    compiled, model = replicated(compile=True)
    for a, b in zip(plain, compiled, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)
    assert model.state_dict().keys() == build_model(SMALL, 0).state_dict().keys()


@pytest.mark.gpu
def test_compiled_for_the_gpu() -> None:
    model = build_model(SMALL, 0)
    device = torch.device("cuda")
    network = replicate(model, device, compile=True)
    images = torch.randn(6, 3, 16, 16, device=device)
    found = first(network([images]))
    assert found.shape == (6, 8) and bool(found.isfinite().all())


def test_alone_gradients_are_never_held_back() -> None:
    with without_averaging(build_model(SMALL, 0)):
        pass
