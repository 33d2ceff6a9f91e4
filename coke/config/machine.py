"""Section ``[machine]``: how this machine computes a run; another machine may do otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from coke.files.byte_size import parse_bytes

#: Space in the cache for containers of remote data sets, in gigabytes (1e9 bytes).
DEFAULT_CACHE_GB = 50.0


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Device, memory and caches. A resumed run may differ here.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``tf32``, ``bf16`` or ``fp16`` (with a gradient scaler). A
            checkpoint names the precision it was trained in; a run goes on in the same one only.
        threads: DALI's CPU threads; 0 for all cores.
        channels_last: memory layout of images and convolutions; the faster one almost everywhere.
        compile: ``torch.compile`` the network.
        checkpoint_activations: compute a block's activations again in the backward pass instead of
            keeping them.
        memory_budget: refuse to start if the estimated memory of a rank exceeds this, e.g.
            ``16GiB``; empty for what is free.
        rank_timeout: seconds that ranks wait for each other before they give up.
        cache_dir: folder for files of remote data sets; if empty ``$COKE_CACHE``, or ``coke`` in
            the user's cache folder.
        cache_gb: space for containers of remote data sets there, in gigabytes.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    channels_last: bool = True
    compile: bool = False
    checkpoint_activations: bool = False
    memory_budget: str = ""
    rank_timeout: float = 600.0
    cache_dir: str = ""
    cache_gb: float = DEFAULT_CACHE_GB

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"machine.threads is {self.threads}; give a count, or 0 for all cores")
        if self.memory_budget:
            parse_bytes(self.memory_budget)
        if self.rank_timeout <= 0:
            raise ValueError(
                f"machine.rank_timeout is {self.rank_timeout}; give seconds, more than 0"
            )
        if self.cache_gb <= 0:
            raise ValueError(
                f"machine.cache_gb is {self.cache_gb}; give a positive number of gigabytes"
            )
