"""The benchmark's step is training's own, and its stages are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from coke.config.config import Config
from coke.model import lars
from coke.tools.bench.coke_step import STEP_STAGES, CokeStep
from coke.tools.bench.timing import StageClock
from coke.tools.training.bad_steps import BadSteps
from coke.tools.training.learner import Place, Step

CPU = torch.device("cpu")


@pytest.mark.parametrize("views", [1, 2])
def test_every_stage_is_marked_once_and_in_order(tiny: Config, views: int) -> None:
    clock = StageClock(CPU)
    training = CokeStep(tiny.changed(data={"views": views}), CPU, "fp32", clock)
    images = list(torch.randn(views, 4, 3, 16, 16))
    for _ in range(2):
        clock.start()
        training.step(images, torch.arange(4))
    for spans in clock.steps():
        assert tuple(span.stage for span in spans) == STEP_STAGES


def test_each_piece_of_a_step_has_its_stages(tiny: Config) -> None:
    clock = StageClock(CPU)
    training = CokeStep(tiny.changed(optimizer={"accumulate": 2}), CPU, "fp32", clock)
    clock.start()
    training.step([torch.randn(16, 3, 16, 16)], torch.arange(16))
    look_up, *of_piece, optimiser, clustering, write = STEP_STAGES
    assert of_piece == ["forward", "loss", "backward"]
    expected = [look_up, *of_piece, *of_piece, optimiser, clustering, write]
    assert [span.stage for span in clock.steps()[0]] == expected


@pytest.mark.slow
def test_stages_of_a_compiled_network_are_told_apart(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> torch.fx.GraphModule:
        calls.append(graph)
        return graph

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compile_module(self, backend=backend)
    )
    clock = StageClock(CPU)
    training = CokeStep(
        tiny.changed(machine={"compile": True}, optimizer={"accumulate": 2}), CPU, "fp32", clock
    )
    for _ in range(2):
        clock.start()
        training.step([torch.randn(16, 3, 16, 16)], torch.arange(16))
    assert len(calls) == 1  # one graph: timing adds no break to it
    for spans in clock.steps():
        assert {span.stage for span in spans} == set(STEP_STAGES)
        assert [span.stage for span in spans].count("backward") == 2


def test_the_network_is_built_as_training_builds_it(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def noted(model: torch.nn.Module, _device: torch.device, **options: bool) -> torch.nn.Module:
        given.append(options)
        return model

    monkeypatch.setattr("coke.tools.training.learner.replicate", noted)
    CokeStep(tiny, CPU, "fp32")
    CokeStep(
        tiny.changed(
            machine={"channels_last": False, "checkpoint_activations": True, "compile": True}
        ),
        CPU,
        "fp32",
    )
    assert given == [
        {"channels_last": True, "checkpoint": False, "compile": False},
        {"channels_last": False, "checkpoint": True, "compile": True},
    ]


def test_a_step_trains_and_clusters(tiny: Config) -> None:
    training = CokeStep(tiny, CPU, "fp32")
    weights = next(training.learner.model.parameters()).detach().clone()
    ids = torch.tensor([5, 1_281_166])
    before = training.learner.clustering.label_store.read(ids)
    assert before.tolist() == [[5 % 3, 1_281_166 % 3], [5 % 5, 1_281_166 % 5]]
    centers = training.learner.clustering.heads[0].running_centers.clone()
    training.step([torch.randn(2, 3, 16, 16)], ids)
    assert not torch.equal(next(training.learner.model.parameters()), weights)
    assert not torch.equal(training.learner.clustering.heads[0].running_centers, centers)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "views"), [("paper", 2), ("auto", 1)])
def test_a_step_asks_a_device_that_has_no_numbers_for_none(
    tiny: Config, rule: str, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a value of a ``meta`` tensor raises, as waiting does in the test below."""
    meta = torch.device("meta")
    config = replace(
        tiny,
        model=replace(tiny.model, predictor_hidden=8),
        optimizer=replace(tiny.optimizer, name="lars"),
        clustering=replace(tiny.clustering, dual_rule=rule, first_stage_epochs=2),
    ).changed(data={"views": views}, optimizer={"accumulate": 2})
    # Torch's fused kernel, which moves the weights, has no form for such a device.
    monkeypatch.setattr(lars, "sgd", lambda *_args, **_options: None)
    training = CokeStep(config, meta, "fp32")
    images = [torch.randn(16, 3, 16, 16, device=meta) for _ in range(views)]
    for epoch in (1, 3):  # the second stage begins with 2
        training.learner.clustering.epoch = epoch
        loss = training.step(images, torch.arange(16, device=meta))
    with pytest.raises(RuntimeError, match="meta"):
        bool(loss > 0)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["paper", "auto"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["lars", "sgd"])
def test_a_step_never_makes_the_host_wait_for_the_gpu(
    tiny: Config, rule: str, precision: str, name: str
) -> None:
    """Any synchronisation inside of a step raises here."""
    device = torch.device("cuda")
    config = replace(
        tiny,
        optimizer=replace(tiny.optimizer, name=name),
        clustering=replace(tiny.clustering, dual_rule=rule, first_stage_epochs=2),
    )
    training = CokeStep(config, device, precision)
    views = [torch.randn(16, 3, 16, 16, device=device)]
    ids = torch.arange(16, device=device)
    bad_steps, on_host = BadSteps(5), torch.arange(16)
    for epoch in (1, 2, 3):  # the second stage begins with 2
        training.learner.clustering.epoch = epoch
        for _ in range(2):  # the first step sets up what stays
            loss = training.step(views, ids)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(2):
                loss = training.step(views, ids)
                finite = torch.isfinite(loss)
                taken = Step(loss=loss, valid=finite, ids=on_host, images=len(ids), lr=0.1)
                bad_steps.add(Place(epoch=epoch, step=step, steps=2), taken)
        finally:
            torch.cuda.set_sync_debug_mode("default")
