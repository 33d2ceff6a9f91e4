"""What ``auto`` chooses, worked by hand over the number of images, their size, and the device."""

from __future__ import annotations

import pytest

from coke.config.auto import choose, heads
from coke.config.config import Config
from coke.config.facts import DataFacts, DeviceFacts
from coke.config.overrides import checked_settings, layered, to_toml, with_settings
from coke.config.presets import presets
from coke.config.wishes import Wishes

CPU = DeviceFacts(gpu=False, cores=2)
GPU = DeviceFacts(gpu=True, precision="bf16")
GPUS = DeviceFacts(gpu=True, ranks=8, precision="bf16")
IMAGENET = DataFacts(images=1_281_167, side=375)


def chosen(images: int, side: int, device: DeviceFacts, *, gray: bool = False) -> Config:
    return choose(DataFacts(images=images, side=side, gray=gray), device, Wishes()).config


# images, side, device; network; crops from and to; heads; batch; learning rate; epochs
TABLE = [
    (40, 362, CPU, "ResNet-10, width 32", (64, 96), (4, 10), 16, 0.025, 200),
    (500, 375, CPU, "ResNet-10, width 32", (64, 96), (10, 31), 64, 0.1, 200),
    (3_000, 32, CPU, "ResNet-8, width 16", (16, 24), (10, 20, 43, 89, 180), 128, 0.2, 200),
    (10_000, 32, CPU, "ResNet-8, width 16", (16, 24), (10, 28, 79, 220, 620), 128, 0.2, 200),
    (50_000, 32, CPU, "ResNet-8, width 16", (16, 24), (10, 42, 170, 740, 3100), 128, 0.2, 50),
    (60_000, 28, CPU, "ResNet-8, width 16", (16, 20), (10, 44, 190, 850, 3700), 128, 0.2, 41),
    (5_000_000, 375, CPU, "ResNet-10, width 32", (64, 96), (10, 47, 220, 1000, 5000), 128, 0.2, 10),
    (3_000, 32, GPU, "ResNet-18, width 64", (0, 32), (10, 20, 43, 89, 180), 256, 0.4, 400),
    (50_000, 32, GPU, "ResNet-18, width 64", (0, 32), (10, 42, 170, 740, 3100), 256, 0.4, 400),
    (13_000, 300, GPU, "ResNet-18, width 64", (0, 224), (10, 30, 90, 270, 810), 256, 0.4, 400),
    (
        126_689,
        375,
        GPUS,
        "ResNet-50, width 64",
        (0, 224),
        (10, 47, 220, 1000, 5000),
        1024,
        1.6,
        400,
    ),
    (1_281_167, 375, GPUS, "ResNet-50, width 64", (0, 224), (3000, 4000, 5000), 1024, 1.6, 1000),
    (5_000_000, 375, GPUS, "ResNet-50, width 64", (0, 224), (3000, 4000, 5000), 1024, 1.6, 256),
]


@pytest.mark.parametrize(
    ("images", "side", "device", "network", "crops", "clusters", "batch", "lr", "epochs"),
    TABLE,
    ids=[f"{row[0]} of {row[1]} on {row[2]}" for row in TABLE],
)
def test_the_table(
    images: int,
    side: int,
    device: DeviceFacts,
    network: str,
    crops: tuple[int, int],
    clusters: tuple[int, ...],
    batch: int,
    lr: float,
    epochs: int,
) -> None:
    config = chosen(images, side, device)
    assert config.model.network == network
    assert (config.data.start_size, config.data.view.size) == crops
    assert config.clustering.n_clusters == clusters
    assert (config.data.batch_size, config.optimizer.lr) == (batch, lr)
    assert (config.optimizer.epochs, config.data.views) == (epochs, 2)
    config.clustering.check_fits(images)
    small = images < 500_000 or not device.gpu
    assert (config.clustering.min_ratio, config.clustering.dual_rule) == (
        (0.9, "auto") if small else (0.4, "paper")
    )
    assert config.loss.alpha_warmup == (1.0 if small else 0.0)


def test_imagenet_on_8_gpus_is_the_papers_preset() -> None:
    assert choose(IMAGENET, GPUS, Wishes()).config == presets["imagenet-2view"]
    one = Wishes(settings={"data": {"views": 1}})
    assert choose(IMAGENET, GPUS, one).config == presets["imagenet-1view"]
    # Table 10: of 200 epochs the last 40 with averaged labels
    short = Wishes(settings={"data": {"views": 1}, "optimizer": {"epochs": 200}})
    assert choose(IMAGENET, GPUS, short).config.clustering.first_stage_epochs == 161


def test_gray_images_have_no_change_of_colour() -> None:
    small = chosen(60_000, 28, CPU, gray=True).data
    assert small.view == small.second_view
    assert (small.view.jitter, small.view.gray_p) == ((0.4, 0.4, 0.0, 0.0), 0.0)
    assert (small.view.mean, small.view.std) == ((0.286,) * 3, (0.353,) * 3)  # as `demo`
    large = chosen(60_000, 512, GPU, gray=True).data
    for view in (large.view, large.second_view):
        assert (view.jitter, view.gray_p) == ((0.4, 0.4, 0.0, 0.0), 0.0)
        assert view.mean == pytest.approx((0.449,) * 3, abs=1e-3)
    assert chosen(60_000, 512, GPU).data.view.jitter[3] > 0


@pytest.mark.parametrize("images", [2, 3, 5, 17, 33, 40, 65, 129, 257, 1025, 4097])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_batch_has_an_equal_share_of_every_rank_and_none_is_left_with_one_image(
    images: int, ranks: int
) -> None:
    config = chosen(images, 32, DeviceFacts(gpu=False, ranks=ranks))
    batch = config.data.batch_size
    assert batch % ranks == 0 and 2 <= batch <= max(images, 2 * ranks)
    assert images % batch != 1 or batch <= 2 * ranks
    assert config.optimizer.lr == pytest.approx(0.2 * batch / 128, rel=1e-2)
    config.clustering.check_fits(images)


def test_heads() -> None:
    # 31 / 10 = 3.1 is one step of at least 2; 100 / 10 three of 10 ** (1 / 3) = 2.15
    assert heads(500) == (10, 31)
    assert heads(1600) == (10, 21, 46, 100)
    assert heads(160) == (10, 20)
    assert heads(2) == (2,)


def test_what_is_given_wins_and_the_rest_follows() -> None:
    wishes = Wishes(
        settings={
            "seed": 3,
            "data": {"batch_size": 32, "view": {"size": 12}},
            "clustering": {"n_clusters": [7]},
            "optimizer": {"epochs": 100},
            "run": {"probe_every": 5},
        }
    )
    config = choose(DataFacts(images=3000, side=32), CPU, wishes).config
    assert (config.seed, config.run.probe_every) == (3, 5)
    assert (config.data.batch_size, config.optimizer.lr) == (32, 0.05)  # 0.2 * 32 / 128
    assert (config.data.second_view.size, config.data.start_size) == (12, 0)
    assert config.clustering.n_clusters == (7,)
    assert (config.optimizer.epochs, config.optimizer.warmup_epochs) == (100, 2.0)
    lars = Wishes(settings={"optimizer": {"name": "lars"}, "data": {"batch_size": 256}})
    assert choose(IMAGENET, GPUS, lars).config.optimizer.lr == 0.8  # Table 9: 0.8
    paper = Wishes(settings={"data": {"view": {"size": 96}}})
    assert choose(IMAGENET, GPUS, paper).config.data.second_view.size == 96


def test_a_transformer_has_sides_of_whole_patches() -> None:
    vit = {"backbone": "vit", "size": "tiny", "patch": 16}
    config = choose(DataFacts(images=500, side=375), CPU, Wishes(settings={"model": vit})).config
    sizes = config.data.view_sizes()
    assert all(size % 16 == 0 for size in sizes.values()) and config.data.view.size == 96
    assert config.optimizer.name == "adamw" and config.optimizer.lr == 3.75e-5  # 6e-4 * 64 / 1024


def test_time_and_memory_decide_epochs_and_pieces() -> None:
    data = DataFacts(images=10_000, side=32)
    choice = choose(data, CPU, Wishes(hours=2.0), epochs=150, pieces=4)
    assert choice.config.optimizer.epochs == 150
    assert choice.config.optimizer.warmup_epochs == 3.0
    assert choice.config.optimizer.accumulate == 4
    assert choice.reasons["epochs"] == (
        "150: 1,500,000 images in all, 2 hours at the speed of the first steps"
    )
    assert choice.reasons["pieces"].startswith("4 of a step")


def test_reasons_are_about_ten_lines_and_say_what_was_given() -> None:
    wishes = Wishes(settings={"data": {"views": 1}})
    lines = choose(DataFacts(images=60_000, side=28, gray=True), CPU, wishes).lines()
    assert lines[:3] == [
        "  found         60,000 images of 28 pixels, gray; 2 cores, no GPU",
        "  network       ResNet-8, width 16: small, as there is no GPU",
        "  views         1: as given",
    ]
    assert len(lines) == 9
    assert lines[-2] == "  epochs        41: 2,460,000 images in all; --hours H sets them by time"


@pytest.mark.parametrize("device", [CPU, GPUS], ids=str)
def test_the_settings_read_back_are_the_same(device: DeviceFacts) -> None:
    """As config.toml has them all, nothing is chosen again, on whatever machine."""
    import tomllib

    config = choose(DataFacts(images=3000, side=32), device, Wishes()).config
    saved = tomllib.loads(to_toml(config))
    assert saved.pop("preset") == config.preset == "auto"
    again = choose(DataFacts(images=3000, side=32), CPU, Wishes(settings=saved)).config
    assert again == config


def test_wishes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"unknown config key 'data.batchsize'; valid keys: views"):
        Wishes(settings={"data": {"batchsize": 3}})
    with pytest.raises(ValueError, match=r"'data.view.size' is 'large'; it must be int"):
        Wishes(settings={"data": {"view": {"size": "large"}}})
    with pytest.raises(ValueError, match=r"hours is 0; give a positive number of hours"):
        Wishes(hours=0)
    with pytest.raises(ValueError, match=r"--hours 2 decides the number of epochs, and .* is 7"):
        Wishes(settings={"optimizer": {"epochs": 7}}, hours=2)
    with pytest.raises(ValueError, match="train on 1 large view or more"):
        choose(IMAGENET, CPU, Wishes(settings={"data": {"views": 0}}))


def test_checked_settings_are_those_that_are_applied() -> None:
    settings = {"clustering": {"n_clusters": [3, 4]}, "optimizer": {"lr": 1}}
    checked = checked_settings(Config(), settings)
    assert checked == {"clustering": {"n_clusters": (3, 4)}, "optimizer": {"lr": 1.0}}
    assert with_settings(Config(), layered([settings])).optimizer.lr == 1.0
