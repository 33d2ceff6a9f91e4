"""Advice fits the stage that limits, and names what is not set already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coke.config.clustering import ClusteringConfig
from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.tools.bench.advice import advise


@pytest.fixture(autouse=True)
def bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU computes no bf16 in hardware, unless the test asks for one that does."""
    native = getattr(request, "param", False)
    monkeypatch.setattr("coke.tools.bench.advice.has_native_bf16", lambda _device: native)


def settings(stage: str, config: Config, **given: object) -> list[str]:
    known = {"precision": "fp32", "cores": 4, "shorter_side": 16.0} | given
    return [a.setting for a in advise([stage], config, **known)]  # type: ignore[arg-type]


def test_two_settings_at_most(tiny: Config) -> None:
    for stage in ("bytes by id", "decode", "augment", "forward", "backward", "clustering", "loss"):
        assert len(settings(stage, tiny)) == 2


def test_large_stored_images_are_what_a_decoder_suffers_from(tiny: Config) -> None:
    config = tiny.changed(data={"view": replace(tiny.data.view, size=224)}, machine={"threads": 0})
    assert settings("decode", config, shorter_side=375.0)[0] == "coke ingest --resize-shorter 256"
    assert "--resize-shorter" not in settings("decode", config, shorter_side=256.0)[0]


def test_cores_that_the_loader_does_not_use(tiny: Config) -> None:
    assert settings("augment", tiny.changed(machine={"threads": 1}))[0] == "--set machine.threads=4"
    assert settings("augment", tiny.changed(machine={"threads": 4}))[0] != "--set machine.threads=4"


def test_clustering(tiny: Config) -> None:
    auto = replace(tiny, clustering=ClusteringConfig(n_clusters=(30, 50), dual_rule="auto"))
    assert settings("clustering", auto) == [
        "--set clustering.dual_rule=paper",
        "--set clustering.n_clusters=[30]",
    ]


def test_one_setting_for_each_of_two_stages(tiny: Config) -> None:
    """On a CPU both would be told to split the cores; the step is then told the next thing."""
    large = tiny.changed(machine={"threads": 4}, data={"start_size": 16})
    known = {"precision": "fp32", "cores": 4, "shorter_side": 16.0}
    advice = advise(["augment", "backward"], large, **known)  # type: ignore[arg-type]
    assert settings("augment", large)[0] == settings("backward", large)[0] == "--tune-threads"
    assert [a.setting for a in advice] == ["--tune-threads", settings("backward", large)[1]]


def test_what_was_measured_is_not_advised(tiny: Config) -> None:
    assert "--tune-threads" in settings("backward", tiny)
    assert "--tune-threads" not in settings("backward", tiny, tuned=True)


@pytest.mark.parametrize("bf16", [True], indirect=True)
def test_bf16_comes_first_where_hardware_computes_it(tiny: Config) -> None:
    assert settings("backward", tiny)[0] == "--set machine.precision=bf16"
    assert "--set machine.precision=bf16" not in settings("backward", tiny, precision="bf16")


@pytest.mark.parametrize("bf16", [False], indirect=True)
def test_bf16_is_not_advised_where_it_would_be_emulated(tiny: Config) -> None:
    assert "--set machine.precision=bf16" not in settings("backward", tiny)


def test_smaller_views_are_valued_by_their_pixels(tiny: Config) -> None:
    """From 8 to 16 pixels: a mean square of (64 + 128 + 256) / 3 for three quarters, then 256."""
    advice = advise(["forward"], tiny, precision="fp32", cores=4, shorter_side=16.0)
    why = {a.setting: a.why for a in advice}
    mean = (0.75 * (64 + 128 + 256) / 3 + 0.25 * 256) / 256
    assert f"{mean:.0%} of the pixels" in why["--set data.start_size=8"]


def test_smaller_views_of_a_vit_are_whole_patches(tiny: Config) -> None:
    """0.6 of 224 is 134; 128 is 8 patches of 16."""
    config = replace(
        tiny.changed(data={"view": replace(tiny.data.view, size=224)}),
        model=ModelConfig(backbone="vit", patch=16),
    )
    advice = advise(["forward"], config, precision="fp32", cores=4, shorter_side=256.0)
    assert "--set data.start_size=128" in [a.setting for a in advice]
