"""A finished benchmark with round figures."""

from __future__ import annotations

from coke.config.config import Config
from coke.tools.bench.advice import Advice
from coke.tools.bench.memory import Memory
from coke.tools.bench.methods import MethodTime
from coke.tools.bench.paper import project
from coke.tools.bench.result import EpochBench, Stage
from coke.tools.bench.threads import ThreadSplit
from coke.tools.bench.timing import Span, Spread


def spread(median: float) -> Spread:
    return Spread(median=median, low=0.9 * median, high=1.25 * median, rounds=3)


def stage(name: str, part: str, alone: float | None, together: float | None) -> Stage:
    return Stage(
        name=name,
        part=part,
        alone=None if alone is None else spread(alone),
        together=None if together is None else spread(together),
    )


def method(name: str, alone: float | None, missing: str = "") -> MethodTime:
    return MethodTime(
        name=name,
        views=1,
        precision="fp32",
        alone=None if alone is None else spread(alone),
        training=None if alone is None else spread(2 * alone),
        missing=missing,
    )


def epoch_bench() -> EpochBench:
    """The step takes 100 ms alone and 120 ms in training, of which 8 are a wait."""
    one_step = (
        Span(stage="wait for the loader", start=0, end=8),
        Span(stage="forward", start=8, end=40),
        Span(stage="backward", start=40, end=120),
    )
    next_step = (
        Span(stage="wait for the loader", start=120, end=124),
        Span(stage="forward", start=124, end=164),
        Span(stage="backward", start=164, end=244),
    )
    return EpochBench(
        settings={
            "device": "CPU <A & B>",
            "cores": 2,
            "batch size": 64,
            "views": 1,
            "size": 24,
            "backbone": "ResNet-8, width 16",
            "precision": "fp32",
            "compile": True,
        },
        stages=(
            stage("decode", "loader", 20, None),
            stage("augment", "loader", 30, None),
            stage("loader", "loader", 50, None),
            stage("wait for the loader", "step", None, 8),
            stage("forward", "step", 30, 32),
            stage("backward", "step", 70, 80),
            stage("step", "step", 100, 120),
        ),
        loader=spread(1280),
        step=spread(640),
        both=spread(512),
        limited_by="step",
        limiting_stage="backward",
        shared_cores=False,
        share_of_limit=0.8,
        share_of_ceiling=0.8,
        projection=project(
            512,
            gpus=8,
            config=Config().changed(data={"batch_size": 64}),
            precision="fp32",
            device="CPU",
            cores=2,
            image_kilobytes=1.0,
        ),
        advice=(Advice(setting="--set data.start_size=16", why="smaller <views>"),),
        memory=Memory(peak=3 * 2**30, of="GPU", budget=16 * 2**30, largest_batch=328),
        methods=(
            method("CoKe", 61),
            method("MoCo-v2", 100),
            method("CoKe+", None, missing="no bf16 hardware"),
        ),
        threads=(ThreadSplit(loader=1, step=2, rate=spread(500)),),
        timeline=(one_step, next_step),
    )
