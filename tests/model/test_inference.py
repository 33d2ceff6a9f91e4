"""A network for inference: the same features whatever the cores, and the choice of a precision."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from coke.model import inference
from coke.model.activation_checkpointing import checkpoint_activations
from coke.model.inference import Inference, batch_for
from coke.model.precision import MEASURED
from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer
from tests.support.trained_statistics import trained_statistics

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def images(count: int, size: int = 32) -> Tensor:
    drawn = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=torch.channels_last)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return trained_statistics(ResNet(depth=10, width=8, stem="small"))


def test_features_are_those_of_the_network_which_stays_as_it_was() -> None:
    network = resnet().train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    represent = Inference(network, CPU)
    found = represent(images(70))  # three chunks, the last one short
    assert network.training and all(p.requires_grad for p in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    with torch.no_grad():
        expected = network.eval()(images(70))
    assert found.dtype == torch.float32 and found.shape == (70, 64)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
    nn.init.zeros_(network.get_parameter("conv1.weight"))
    assert torch.equal(represent(images(70)), found), "a copy of the weights"


def test_a_classifier_may_train_on_the_features() -> None:
    """Tensors of inference mode could not be kept for a backward pass."""
    features_BD = Inference(resnet(), CPU)(images(4))
    head = nn.Linear(64, 2)
    head(features_BD).sum().backward()
    assert head.weight.grad is not None and not features_BD.requires_grad


def test_bits_do_not_depend_on_the_number_of_threads(two_threads: None) -> None:
    network = resnet()
    threads: set[str] = set()

    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            assert torch.get_num_threads() == 1 and torch.is_inference_mode_enabled()
            threads.add(threading.current_thread().name)
            features: Tensor = self.network(x)
            return features

    many = Inference(Noted(), CPU)(images(200))
    assert torch.get_num_threads() == 2, "as before"
    assert threading.current_thread().name not in threads
    torch.set_num_threads(1)
    threads.clear()
    assert torch.equal(Inference(Noted(), CPU)(images(200)), many)
    assert threads == {threading.current_thread().name}


def test_an_error_of_a_chunk_is_raised(two_threads: None) -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        Inference(resnet(), CPU)(torch.zeros(70, 4, 32, 32))


def test_checkpointed_activations_are_no_hindrance() -> None:
    network = resnet()
    expected = Inference(network, CPU)(images(3))
    checkpoint_activations(network)
    assert torch.equal(Inference(network, CPU)(images(3)), expected)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: resnet(), id="resnet"),
        pytest.param(lambda: VisionTransformer(size="tiny", patch=8, image_size=16), id="vit"),
    ],
)
def test_bf16_is_near_and_float32_at_the_end(network: object) -> None:
    torch.manual_seed(0)
    made = network().eval()  # type: ignore[operator]
    plain, low = (Inference(made, CPU, p)(images(2, 16)) for p in ("fp32", "bf16"))
    assert low.dtype == torch.float32 and not torch.equal(plain, low)
    assert float((low - plain).abs().max() / plain.abs().max()) < 5e-2


@pytest.mark.parametrize(
    ("seconds", "chosen"), [([1.0, 0.5], "bf16"), ([1.0, 0.9], "fp32"), ([1.0, 9.0], "fp32")]
)
def test_bf16_is_chosen_only_where_it_is_clearly_faster(
    seconds: list[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(seconds)
    monkeypatch.setattr(inference, "fastest", lambda work: next(times))
    represent = Inference(resnet(), CPU, MEASURED)
    found = represent(images(3))
    assert represent.precision == chosen
    assert torch.equal(found, Inference(resnet(), CPU, chosen)(images(3)))
    assert torch.equal(represent(images(3)), found), "decided once"


def test_the_fastest_of_a_few_is_timed() -> None:
    calls: list[int] = []
    assert 0 <= inference.fastest(lambda: calls.append(1)) < 60
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("size", "cpu", "gpu"), [(8, 1024 * 4, 4096), (32, 1024, 4096), (64, 256, 4096), (224, 64, 256)]
)
def test_batches_by_size_and_device(size: int, cpu: int, gpu: int) -> None:
    assert batch_for(size, CPU) == cpu
    assert batch_for(size, torch.device("cuda")) == gpu
