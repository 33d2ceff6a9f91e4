"""Ranks and their devices. What ranks do together is tested in
tests/tools/training/test_train_ranks.py."""

from __future__ import annotations

import pytest
import torch

from coke.distributed.process_group import (
    PeerLostError,
    barrier,
    device_of_this_rank,
    is_main,
    on_main,
    process_group,
    rank,
    ranks_of_this_machine,
    sum_over_ranks,
    world_size,
)

CPU = torch.device("cpu")


@pytest.fixture
def second_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that torchrun gives the second of four ranks on one machine."""
    for name, value in {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_launcher_a_run_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with process_group(CPU, 1.0):
        assert (rank(), world_size(), is_main(), ranks_of_this_machine()) == (0, 1, True, 1)
        barrier()
        assert on_main(lambda: "done") == "done"
        assert sum_over_ranks(torch.tensor(3.0)) == 3
    assert device_of_this_rank("cuda:3") == "cuda:3"


@pytest.mark.usefixtures("second_of_four")
def test_every_rank_of_a_machine_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    assert device_of_this_rank("auto") == device_of_this_rank("cuda") == "cuda:1"
    assert device_of_this_rank("cpu") == "cpu"
    with pytest.raises(ValueError, match="'cuda:0', but 4 ranks run on this machine"):
        device_of_this_rank("cuda:0")
    gpus(monkeypatch, 1)
    with pytest.raises(ValueError, match="4 ranks run on this machine, but torch sees 1 GPUs"):
        device_of_this_rank("cuda")
    gpus(monkeypatch, 0)
    assert device_of_this_rank("auto") == "auto"  # which is then the CPU


@pytest.mark.usefixtures("second_of_four")
def test_one_rank_of_a_machine_has_its_first_gpu_or_the_named_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device has a number in either case, because NCCL needs one."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    gpus(monkeypatch, 2)
    assert device_of_this_rank("cuda") == "cuda:0"
    assert device_of_this_rank("cuda:1") == "cuda:1"


@pytest.mark.usefixtures("second_of_four")
def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT")
    with (
        pytest.raises(ValueError, match="MASTER_PORT is not: start ranks with torchrun"),
        process_group(CPU, 1.0),
    ):
        pass


@pytest.mark.usefixtures("second_of_four")
@pytest.mark.parametrize(
    ("message", "about_peers"),
    [
        ("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("mat1 and mat2 of /data/igloo/x.jpg", False),
    ],
)
def test_only_lost_peers_become_one_line(
    monkeypatch: pytest.MonkeyPatch, message: str, about_peers: bool
) -> None:
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    expected = "rank 1 of 4 lost the others.*--resume" if about_peers else "mat1 and mat2"
    error = PeerLostError if about_peers else RuntimeError
    with pytest.raises(error, match=expected), process_group(CPU, 5.0):
        raise RuntimeError(message)
