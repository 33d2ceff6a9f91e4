"""Two gloo ranks train as one; ranks that die or stop answering end the others."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering
from coke.config.config import Config
from coke.config.overrides import to_toml
from coke.distributed.lifeline import PEER_LOST
from coke.distributed.process_group import (
    PeerLostError,
    barrier,
    is_main,
    on_main,
    process_group,
    rank,
    world_size,
)
from coke.model import coke_model
from coke.model.coke_model import build_model
from coke.model.replica import replicate
from coke.pipeline.order.order import rank_sizes
from coke.tools.runs.checkpoint import list_checkpoints, load_checkpoint
from coke.tools.runs.run_lock import read_status
from coke.tools.training.extension import extended_config
from coke.tools.training.micro_batches import global_batch
from coke.tools.training.step import scan_batch, train_step
from coke.tools.training.train import train
from tests.support.equal_states import equal_states
from tests.support.metric_records import records
from tests.support.patience import PATIENCE_S, wait_until
from tests.support.ranks import WORLD, free_port, run_ranks, saved, take_place
from tests.support.small_vit import shrink_vit
from tests.support.tiny_config import gentle_config, tiny_config

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
CPU = torch.device("cpu")
N = 40
LIMIT_S = 2 * PATIENCE_S  # for all that the fixture lets both ranks do


def double_steps(config: Config) -> dict[str, Any]:
    """The scan and three steps in float64, of which rounding leaves 15 digits to compare.

    A full batch, and two short ones, of which one rank has more of the first; there, every third
    image has no label.
    """
    with pytest.MonkeyPatch.context() as patch:
        # In training it casts to float32.
        patch.setattr(coke_model, "unit", functools.partial(F.normalize, dim=1))
        shrink_vit(patch)
        return _double_steps(config)


def _double_steps(config: Config) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    model = build_model(config.model, seed=1).double()
    network = replicate(model, CPU, checkpoint=config.machine.checkpoint_activations)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    clustering = Clustering(n_ids=N, dim=config.model.dim, n_clusters=(3, 5))
    for head in clustering.heads:
        head.centers = head.centers.double()
    images = torch.randn(N, 3, 16, 16, generator=generator, dtype=torch.float64)
    losses, features = [], []
    for step, n in enumerate((16, 16, 13, 10)):
        ids = torch.randperm(N, generator=generator)[:n]
        labels = [torch.randint(k, (n,), generator=generator) for k in (3, 5)]
        if step > 1:
            for unlabelled in labels:
                unlabelled[::3] = -1
        mine = slice(rank(), None, world_size())
        views, sizes = [images[ids[mine]]], rank_sizes(n, world_size())
        if step == 0:
            with torch.no_grad():
                seen = scan_batch(network, views, config, "fp32", sizes)
        else:
            seen, loss, _ = train_step(
                network,
                optimizer,
                views,
                [label[mine] for label in labels],
                clustering,
                config,
                "fp32",
                sizes=sizes,
            )
            losses.append(float(loss))
        all_features, all_ids = global_batch(seen.float(), ids[mine], sizes)
        assert torch.equal(all_ids, ids)
        features.append(all_features)
    return {"losses": losses, "features": features, "model": model.state_dict()}


def meet(folder: Path, number: int) -> None:
    """Both ranks go on from here at once, as far as the machine lets them."""
    (folder / f"met-{number}").touch()
    wait_until((folder / f"met-{1 - number}").exists, "the other rank")


def work(number: int, folder: Path, ports: list[int], config: Config, data: Path) -> None:
    torch.set_num_threads(1)
    quiet = Console(quiet=True)
    take_place(number, ports[0])
    with process_group(CPU, LIMIT_S):
        assert (rank(), world_size(), is_main()) == (number, WORLD, number == 0)
        assert on_main(lambda: 7) == 7
        for variant in VARIANTS:
            torch.save(
                double_steps(config.changed(**VARIANTS[variant])),
                folder / f"{variant}-{number}.pt",
            )
        train(config, data, folder / "run", console=quiet)
        with pytest.raises(ValueError, match="exists and is not empty"):  # on both ranks
            train(config, data, folder / "run", console=quiet)
        longer = extended_config(config, more=1)
        train(longer, data, folder / "longer", extend=folder / "run", console=quiet)
        with pytest.raises(ValueError, match="is no training run"):  # on both ranks
            train(longer, data, folder / "none", extend=data, console=quiet)
    lost = []
    take_place(number, ports[1])
    meet(folder, number)
    try:
        with process_group(CPU, 3):
            if number == 0:
                barrier()  # the other rank never comes
            wait_until((folder / "silence-is-over").exists, "the other rank's error")
    except PeerLostError as error:
        lost.append(str(error))
        (folder / "silence-is-over").touch()
    take_place(number, ports[2])
    started = time.monotonic()
    torch.save(lost, folder / f"lost-{number}.pt")
    try:
        with process_group(CPU, LIMIT_S):
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            barrier()
    except PeerLostError as error:
        torch.save([*lost, str(error), time.monotonic() - started], folder / f"lost-{number}.pt")


VARIANTS: dict[str, dict[str, Any]] = {
    "whole": {},
    "pieces": {"optimizer": {"accumulate": 2}},
    "checkpointed": {"machine": {"checkpoint_activations": True}},
    "vit": {
        "model": {"backbone": "vit", "size": "tiny", "patch": 8, "image_size": 24},
        "optimizer": {"accumulate": 2, "clip_norm": 0.01},
    },
}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Path:
    """The folder where two ranks left what they did."""
    folder = tmp_path_factory.mktemp("ranks")
    ports = [free_port() for _ in range(3)]
    codes = run_ranks(work, folder, ports, gentle_config(tiny_config()), stripes, limit_s=LIMIT_S)
    assert codes == [0, -signal.SIGKILL]
    return folder


def equal(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_two_ranks_step_as_one(two_ranks: Path, variant: str) -> None:
    config = gentle_config(tiny_config()).changed(**VARIANTS[variant])
    alone = double_steps(config)
    for found in saved(two_ranks, variant):
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-10)
        for a, b in zip(found["features"], alone["features"], strict=True):
            assert equal(a, b, 1e-6)  # they travel as float32
        assert found["model"].keys() == alone["model"].keys()
        for name, value in alone["model"].items():
            assert equal(found["model"][name], value, 1e-10), name


def test_two_ranks_train_as_one(two_ranks: Path, stripes: Path, tmp_path: Path) -> None:
    """The same labels and centers; the loss to 1e-5. Only rank 0 wrote."""
    train(gentle_config(tiny_config()), stripes, tmp_path / "run", console=Console(quiet=True))
    one, two = (
        [
            json.loads(line)
            for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for run in (tmp_path / "run", two_ranks / "run")
    )
    assert [r["epoch"] for r in two] == [0, 1, 2]
    assert [r["heads"] for r in one] == [r["heads"] for r in two]
    assert [r["loss"] for r in one[1:]] == pytest.approx([r["loss"] for r in two[1:]], abs=1e-5)
    assert len(list((two_ranks / "run" / "tensorboard").glob("events*"))) == 1
    a, b = (
        load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
        for run in (tmp_path / "run", two_ranks / "run")
    )
    assert torch.equal(
        a["clustering"]["label_store"]["labels"], b["clustering"]["label_store"]["labels"]
    )
    for head, other in zip(a["clustering"]["heads"], b["clustering"]["heads"], strict=True):
        assert torch.allclose(head["duals"], other["duals"], atol=1e-5)
        assert equal(head["centers"], other["centers"], 1e-4)
    assert a["model"].keys() == b["model"].keys()


def test_two_ranks_extend_a_run(two_ranks: Path) -> None:
    """From the end of the old run, which stays; rank 0 alone makes the folder."""
    old, new = two_ranks / "run", two_ranks / "longer"
    assert [line["epoch"] for line in records(new)] == [3]
    assert [line["epoch"] for line in records(old)] == [0, 1, 2]
    start, last = (load_checkpoint(list_checkpoints(run / "checkpoints")[-1]) for run in (old, new))
    begun = load_checkpoint(list_checkpoints(new / "checkpoints")[0])
    assert equal_states(begun, start)
    assert last["epoch"] == 3 and not equal_states(last["model"], start["model"])
    assert not (two_ranks / "none").exists() and not list(two_ranks.glob(".*.extending"))


def test_who_loses_the_others_ends(two_ranks: Path) -> None:
    silent, dead, seconds = torch.load(two_ranks / "lost-0.pt", weights_only=False)
    assert re.search(r"rank 0 of 2 lost the others.*did not answer within 3 s", silent)
    assert re.search(r"rank 0 of 2 lost the others", dead)
    assert seconds < LIMIT_S / 2, "a dead rank is noticed at once, not after the time limit"


def coke(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coke", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def wait_for_epochs(metrics: Path, *running: subprocess.Popen[str]) -> None:
    def recorded() -> bool:
        for process in running:
            assert process.poll() is None, process.communicate()
        return metrics.is_file() and metrics.read_text(encoding="utf-8").count("\n") >= 2

    wait_until(recorded, "the record of an epoch")


def rank_processes(launcher: int) -> list[int]:
    """The launcher's children, in the order they were started."""
    listed = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()
    return sorted(map(int, listed))


def test_a_killed_rank_ends_the_command_and_one_rank_goes_on(
    stripes: Path, tmp_path: Path, quiet: Console
) -> None:
    """``coke train --nproc 2``, of which one rank is killed; then the rest of it on one rank."""
    config = gentle_config(tiny_config()).changed(optimizer={"epochs": 1000})
    (tmp_path / "run.toml").write_text(to_toml(config), encoding="utf-8")
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    command = ["train", stripes, "--config", tmp_path / "run.toml", "--nproc", 2, "--out", run]
    launcher = coke(*command)
    try:
        wait_for_epochs(metrics, launcher)
        ranks = rank_processes(launcher.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        _, errors = launcher.communicate(timeout=PATIENCE_S)
    finally:
        launcher.kill()
    assert launcher.returncode == 1
    assert "error: rank 1 of 2 was ended by SIGKILL" in errors
    assert "Traceback" not in errors and len(errors.strip().splitlines()) <= 2, errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)

    (run / "config.toml").write_text(
        to_toml(config.changed(optimizer={"epochs": 30})), encoding="utf-8"
    )
    last = train(
        config.changed(optimizer={"epochs": 30}), stripes, run, resume=True, console=quiet
    )  # one rank
    assert last.epoch == 30
    found = [json.loads(line)["epoch"] for line in metrics.read_text(encoding="utf-8").splitlines()]
    assert found == list(range(31))


def test_a_rank_that_lost_the_others_says_so_by_status_line_and_file(
    stripes: Path, tmp_path: Path
) -> None:
    """Ranks started as torchrun does. The exit status tells ``--nproc`` which rank died first."""
    config = gentle_config(tiny_config()).changed(optimizer={"epochs": 1000})
    (tmp_path / "run.toml").write_text(to_toml(config), encoding="utf-8")
    run = tmp_path / "run"
    command = ["train", stripes, "--config", tmp_path / "run.toml", "--out", run]
    place = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    ranks = [coke(*command, RANK=str(n), LOCAL_RANK=str(n), **place) for n in range(2)]
    try:
        wait_for_epochs(run / "metrics.jsonl", *ranks)
        ranks[1].kill()
        _, errors = ranks[0].communicate(timeout=PATIENCE_S)
    finally:
        for rank_process in ranks:
            rank_process.kill()
            rank_process.communicate()
    assert ranks[0].returncode == PEER_LOST
    assert "error: rank 0 of 2 lost the others" in errors and "Traceback" not in errors
    status = read_status(run)
    assert status is not None and status.state == "failed"
    assert status.message.startswith("rank 0 of 2 lost the others")
