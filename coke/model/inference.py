"""A network for inference: forward only, in one precision, in pieces that suit the device.

Embedding, evaluations, the online probe and reports compute their features here.

Shapes: B batch, S side of an image, D dimension of what the network gives.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from coke.model.folding import fold_batch_norm
from coke.model.precision import MEASURED, autocast, set_tensor_cores

#: Pixels of one forward pass on a CPU: activations of more images no longer fit a core's cache.
#: 32 images of 32 px; small chunks also spread evenly over the cores.
_CHUNK_PIXELS = 32 * 32 * 32
#: Images of one forward pass on a CPU at least: fewer read the weights too often (ResNet-50 at
#: 224 px, CPU time an image: 165 ms alone, 139 ms with four).
_CHUNK_IMAGES = 4
#: Pixels of a batch that is loaded at a time: 1,024 images of 32 px on a CPU (a batch's fixed costs
#: are 0.05 ms an image at 256), 256 of 224 px on a GPU.
_BATCH_PIXELS = {"cpu": 2**20, "gpu": 2**24}
_SMALLEST_BATCH, _LARGEST_BATCH = 64, 4096
_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: bf16 must be so much faster than float32 to be chosen for its speed: it costs accuracy.
_WORTH = 1.25
_TRIALS = 3  # timed passes in each precision, of which the fastest counts


class Inference:
    """A network as a function from images (B, 3, S, S) to float32 outputs (B, D) on the device.

    It is a copy in evaluation mode: the network itself stays as it is, and later changes of its
    weights have no effect. Batch norm is folded into the layers before it, which moves features by
    rounding only: by less than 1e-4 of the largest in float32. In bf16 they differ by some 1e-2.

    On a CPU, a batch goes through in chunks: each core takes a chunk of its own and computes it in
    one thread. Splitting every layer over the cores instead makes all of them wait for the slowest,
    several times in each layer. That is most of the time where the loader needs the cores as well.
    The chunks, and so the features' bits, do not depend on the number of cores.

    Args:
        network: images to (B, D).
        precision: one of :func:`coke.model.precision.inference_precision`.

    Attributes:
        precision: of the forward passes; the first batch turns :data:`MEASURED` into bf16 or fp32.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        self.device, self.precision = device, precision
        self._plain = _folded_copy(network, device)
        self._network = self._plain if precision == MEASURED else self._in(precision)
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cpu" and torch.get_num_threads() > 1:
            self._pool = _one_threaded(torch.get_num_threads())

    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        chunks = images.split(_chunk(images)) if self.device.type == "cpu" else (images,)
        if self.precision == MEASURED:
            self._choose(chunks[0])
        set_tensor_cores(self.precision)
        features = [*(map if self._pool is None else self._pool.map)(self._forward, chunks)]
        # Concatenated outside of inference mode: a classifier may train on the result.
        return torch.cat(features)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            features_BD: Tensor = self._network(images)
        return features_BD.float()

    def _in(self, precision: str) -> nn.Module:
        """The network in a precision."""
        if precision not in _LOW:
            return self._plain
        network = copy.deepcopy(self._plain)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # autocast would convert at every pass
                module.to(_LOW[precision])
        return network

    def _choose(self, images: Tensor) -> None:
        """bf16 where it is clearly faster on these images, else fp32."""
        seconds = {}
        for precision in ("fp32", "bf16"):
            self.precision, self._network = precision, self._in(precision)
            work = partial(fastest, partial(self._forward, images))
            seconds[precision] = work() if self._pool is None else self._pool.submit(work).result()
        if seconds["fp32"] < _WORTH * seconds["bf16"]:
            self.precision, self._network = "fp32", self._plain


def batch_for(size: int, device: torch.device) -> int:
    """Images to load and hand over at a time: as many as have the pixels of a good batch.

    Args:
        size: side of the images in pixels.
    """
    pixels = _BATCH_PIXELS["cpu" if device.type == "cpu" else "gpu"]
    fitting = max(_SMALLEST_BATCH, min(_LARGEST_BATCH, pixels // size**2))
    return 1 << (fitting.bit_length() - 1)  # a power of two


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, behind one that is not timed."""
    work()
    found = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def _folded_copy(network: nn.Module, device: torch.device) -> nn.Module:
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for module in copied.modules():
        module.__dict__.pop("forward", None)  # activation checkpointing
    for parameter in copied.parameters():
        parameter.grad = None
    fold_batch_norm(copied)
    return copied.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _chunk(images: Tensor) -> int:
    """Images of one forward pass on a CPU."""
    return max(_CHUNK_IMAGES, _CHUNK_PIXELS // max(1, images.shape[-2] * images.shape[-1]))


def _one_threaded(count: int) -> ThreadPoolExecutor:
    """A pool of threads in which torch computes without further threads; they end with the pool."""
    pool = ThreadPoolExecutor(count)
    everyone = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first question sets it to the default: ask before
        torch.set_num_threads(1)  # of this thread, and the default of threads that start later
        everyone.wait()

    for _ in range(count):
        pool.submit(start)
    everyone.wait()
    torch.set_num_threads(count)  # of the caller, as it was, and the default again
    return pool
