"""The loader: every id once, with its own pixels, from any step, on any number of ranks."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coke.config.view_recipe import IMAGENET_MULTICROP, IMAGENET_TWO_VIEW, ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading import loader
from coke.pipeline.loading.loader import Batch, build_loader
from coke.pipeline.order.order import order
from coke.pipeline.views import dali

needs_dali = pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed")
BACKENDS = [pytest.param("dali", marks=needs_dali), "pil"]

#: Pixels are grey levels 0..255; crops and flips change them, their colour stays recognisable.
GEOMETRY = ViewRecipe(
    size=16,
    scale=(0.3, 1.0),
    jitter_p=0,
    gray_p=0,
    blur_p=0,
    mean=(0, 0, 0),
    std=(1 / 255, 1 / 255, 1 / 255),
)
EVERYTHING = ViewRecipe(size=16)


@pytest.fixture(scope="module")
def index(color_set: Path) -> ImageIndex:
    return ImageIndex(color_set)


def colors(index: ImageIndex) -> Tensor:
    """Colour (N, 3) of each id, from its key."""
    return torch.tensor([[float(c) for c in key[:-4].split("-")] for key in index.keys])


def shown_ids(index: ImageIndex, view: Tensor) -> list[int]:
    """Which image each row shows: the one of the nearest colour."""
    distances = torch.cdist(view.mean((2, 3)), colors(index))
    assert distances.amin(1).max() < 15
    ids: list[int] = distances.argmin(1).tolist()
    return ids


def all_ids(batches: Iterable[Batch]) -> list[int]:
    return [i for batch in batches for i in batch.ids.tolist()]


def pixels_by_id(batches: Iterable[Batch], view: int = 0) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for batch in batches:
        for image_id, pixels in zip(batch.ids.tolist(), batch.views[view], strict=True):
            assert image_id not in found
            found[image_id] = pixels
    return found


def build(index: ImageIndex, *recipes: ViewRecipe, **options: Any) -> loader.Loader:
    options = {"batch_size": 5, "threads": 1} | options
    return build_loader(index, recipes or [GEOMETRY], **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_id_once_with_its_own_pixels(index: ImageIndex, backend: str) -> None:
    batches = list(build(index, backend=backend).epoch(0))
    assert sorted(all_ids(batches)) == list(range(23))
    assert [len(b.ids) for b in batches] == [5, 5, 5, 5, 3]
    for batch in batches:
        assert batch.ids.dtype == torch.int64
        (view,) = batch.views
        assert view.shape == (len(batch.ids), 3, 16, 16)
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert shown_ids(index, view) == batch.ids.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_epochs_follow_the_order(index: ImageIndex, backend: str) -> None:
    built = build(index, backend=backend, seed=4)
    for epoch in (0, 1, 0):
        assert all_ids(built.epoch(epoch)) == order(4, epoch, 23).tolist()
    assert all_ids(build(index, backend=backend, shuffle=False).epoch(3)) == list(range(23))


@pytest.mark.parametrize("backend", BACKENDS)
def test_augmentation_changes_by_epoch_and_seed_but_repeats(
    index: ImageIndex, backend: str
) -> None:
    built = build(index, backend=backend)
    first, second = pixels_by_id(built.epoch(0)), pixels_by_id(built.epoch(1))
    again = pixels_by_id(build(index, backend=backend).epoch(0))
    other = pixels_by_id(build(index, backend=backend, seed=1).epoch(0))
    assert all(torch.equal(first[i], again[i]) for i in range(23))
    assert sum(torch.equal(first[i], second[i]) for i in range(23)) <= 2
    assert sum(torch.equal(first[i], other[i]) for i in range(23)) <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_restoring_at_every_step_repeats_the_rest(index: ImageIndex, backend: str) -> None:
    whole = list(build(index, EVERYTHING, backend=backend).epoch(2))
    restored = build(index, EVERYTHING, backend=backend)
    for step in range(len(whole) + 1):
        rest = list(restored.epoch(2, start=min(step * 5, 23)))
        assert len(rest) == len(whole) - step
        for a, b in zip(whole[step:], rest, strict=True):
            assert torch.equal(a.ids, b.ids)
            assert torch.equal(a.views[0], b.views[0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipes", [IMAGENET_TWO_VIEW, IMAGENET_MULTICROP], ids=["pair", "multi"])
def test_several_views_repeat_and_restore_within_an_epoch(
    index: ImageIndex, recipes: tuple[ViewRecipe, ...], backend: str
) -> None:
    smaller = [replace(recipe, size=recipe.size // 4) for recipe in recipes]
    options: dict[str, Any] = {"batch_size": 10, "backend": backend, "seed": 1}
    whole = list(build(index, *smaller, **options).epoch(2))
    assert sorted(all_ids(whole)) == list(range(23))
    for batch in whole:
        assert [tuple(view.shape) for view in batch.views] == [
            (len(batch.ids), 3, recipe.size, recipe.size) for recipe in smaller
        ]
        pairs = itertools.combinations(batch.views, 2)
        assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
    restored = list(build(index, *smaller, **options).epoch(2, start=10))
    assert len(restored) == len(whole) - 1
    for a, b in zip(whole[1:], restored, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_of_an_id_do_not_depend_on_batch_size(index: ImageIndex, backend: str) -> None:
    small = build(index, EVERYTHING, backend=backend, batch_size=3)
    large = build(index, EVERYTHING, backend=backend, batch_size=23)
    a, b = pixels_by_id(small.epoch(1)), pixels_by_id(large.epoch(1))
    assert all(torch.equal(a[i], b[i]) for i in range(23))


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_ranks_together_see_what_one_sees(index: ImageIndex, backend: str) -> None:
    options: dict[str, Any] = {"batch_size": 6, "backend": backend}
    whole = list(build(index, EVERYTHING, **options).epoch(1))
    ranks = [list(build(index, EVERYTHING, world=2, rank=r, **options).epoch(1)) for r in range(2)]
    assert len(whole) == len(ranks[0]) == len(ranks[1]) == 4
    for together, *parts in zip(whole, *ranks, strict=True):
        union, single = pixels_by_id(parts), pixels_by_id([together])
        assert union.keys() == single.keys()
        assert all(torch.equal(union[i], single[i]) for i in single)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restart_on_two_ranks_continues_the_run_of_one(index: ImageIndex, backend: str) -> None:
    options: dict[str, Any] = {"batch_size": 6, "backend": backend}
    whole = pixels_by_id(list(build(index, EVERYTHING, **options).epoch(1))[2:])
    parts = [
        batch
        for rank in range(2)
        for batch in build(index, EVERYTHING, world=2, rank=rank, **options).epoch(1, start=12)
    ]
    rest = pixels_by_id(parts)
    assert rest.keys() == whole.keys()
    assert all(torch.equal(rest[i], whole[i]) for i in whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_rank_takes_the_same_number_of_steps(index: ImageIndex, backend: str) -> None:
    for rank in range(5):
        built = build(index, world=5, rank=rank, backend=backend)
        batches = list(built.epoch(0))
        assert len(batches) == built.steps_per_epoch == 5
        assert [len(b.ids) for b in batches] == [1, 1, 1, 1, int(rank < 3)]
        assert [b.sizes for b in batches] == [(1,) * 5] * 4 + [(1, 1, 1, 0, 0)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_rest_is_short_or_left_out(index: ImageIndex, backend: str) -> None:
    kept = build(index, backend=backend)
    assert (kept.samples_per_epoch, kept.steps_per_epoch) == (23, 5)
    dropped = build(index, backend=backend, drop_ragged=True)
    assert (dropped.samples_per_epoch, dropped.steps_per_epoch) == (20, 4)
    left_out = []
    for epoch in range(12):
        batches = list(dropped.epoch(epoch))
        assert [len(b.ids) for b in batches] == [5, 5, 5, 5]
        assert all_ids(batches) == order(0, epoch, 23)[:20].tolist()
        left_out.append(set(range(23)) - set(all_ids(batches)))
    assert all(len(ids) == 3 for ids in left_out)
    assert len(set().union(*left_out)) > 12  # 36 draws of 23 ids: rotating, not always the same
    even = build(index, backend=backend, batch_size=23, drop_ragged=True)
    assert (even.samples_per_epoch, even.steps_per_epoch) == (23, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_recipes(index: ImageIndex, backend: str) -> None:
    large = ViewRecipe(**(vars(GEOMETRY) | {"size": 24, "flip_p": 1.0}))
    for batch in build(index, GEOMETRY, large, backend=backend).epoch(0):
        first, second = batch.views
        assert first.shape[2:] == (16, 16) and second.shape[2:] == (24, 24)
        assert shown_ids(index, first) == shown_ids(index, second) == batch.ids.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_recipes_give_different_views(index: ImageIndex, backend: str) -> None:
    built = build(index, EVERYTHING, EVERYTHING, backend=backend)
    a, b = pixels_by_id(built.epoch(0), 0), pixels_by_id(built.epoch(0), 1)
    assert sum(torch.equal(a[i], b[i]) for i in range(23)) <= 2


@needs_dali
def test_several_views_decode_an_image_once(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvidia.dali import fn

    calls = {"image": 0, "image_slice": 0}

    def counted(name: str) -> Any:
        original = getattr(fn.decoders, name)

        def decoder(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        return decoder

    for name in calls:
        monkeypatch.setattr(fn.decoders, name, counted(name))
    build(index, GEOMETRY, GEOMETRY, GEOMETRY)  # on the CPU only the region that holds all crops
    assert calls == {"image": 0, "image_slice": 1}
    build(index, GEOMETRY)
    assert calls == {"image": 0, "image_slice": 2}


@needs_dali
def test_backends_agree(index: ImageIndex) -> None:
    a = list(build(index, backend="dali").epoch(3))
    b = list(build(index, backend="pil").epoch(3))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.ids, y.ids)
        assert x.views[0].dtype == y.views[0].dtype
        assert (x.views[0] - y.views[0]).abs().mean() < 1  # grey levels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_views", [1, 2])
def test_an_undecodable_record_is_named(
    color_set: Path, tmp_path: Path, backend: str, n_views: int
) -> None:
    out = shutil.copytree(color_set, tmp_path / "copy")
    row = ImageIndex(out).rows[13]
    container = ImageIndex(out).manifest.containers[int(row["container"])].name
    assert container != ImageIndex(out).manifest.containers[0].name
    with (out / container).open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(bytes(int(row["length"])))
    crc32 = np.load(out / "checksums.npy")
    crc32[13] = zlib.crc32(bytes(int(row["length"])))  # as if it had been ingested like this
    np.save(out / "checksums.npy", crc32)
    index = ImageIndex(out)
    place = f"cannot decode id 13 ({index.keys[13]}) in {container} at offset {int(row['offset'])}"
    built = build(index, *[GEOMETRY] * n_views, backend=backend)
    seen: list[int] = []

    def take_all() -> None:
        for batch in built.epoch(0):
            assert shown_ids(index, batch.views[0]) == batch.ids.tolist()
            seen.extend(batch.ids.tolist())

    with pytest.raises(ValueError, match=re.escape(place)) as caught:
        take_all()
    assert "coke verify" in str(caught.value)
    assert seen == order(0, 0, 23).tolist()[: len(seen)]
    assert 13 not in seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaving_an_epoch_early_does_not_disturb_the_next(index: ImageIndex, backend: str) -> None:
    built = build(index, backend=backend)
    for taken in range(1, 5):
        for step, _ in enumerate(built.epoch(0), start=1):
            if step == taken:
                break
        for batch in built.epoch(1):
            assert shown_ids(index, batch.views[0]) == batch.ids.tolist()


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            "dali",
            marks=needs_dali,
        ),
        "pil",
    ],
)
def test_two_epochs_at_once_are_refused_or_right(index: ImageIndex, backend: str) -> None:
    """A held iterator (say, by a traceback) must not give its pixels to another's ids."""
    built = build(index, backend=backend, batch_size=1)
    held = built.epoch(0)
    next(held)
    try:
        batches = list(built.epoch(1))
    except (RuntimeError, ValueError):
        return
    for batch in batches:
        assert shown_ids(index, batch.views[0]) == batch.ids.tolist()


@pytest.mark.parametrize("start", [24, -1])
def test_an_impossible_start_is_refused(index: ImageIndex, start: int) -> None:
    with pytest.raises(ValueError, match=f"start is {start}"):
        list(build(index, backend="pil").epoch(0, start=start))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 5, "world": 2}, "batch_size is 5; give a positive multiple of world 2"),
        ({"batch_size": 4, "world": 2, "rank": 2}, "rank is 2 in a world of 2; ranks are 0..1"),
        ({"rank": -1}, "rank is -1"),
        ({"backend": "cv2"}, "backend is 'cv2'; choose one of auto, dali, pil, ffcv"),
        ({"recipes": []}, "recipes is empty"),
    ],
)
def test_bad_arguments(index: ImageIndex, wrong: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"recipes": [GEOMETRY], "batch_size": 4, "backend": "pil"} | wrong
    with pytest.raises(ValueError, match=re.escape(message)):
        build_loader(index, **arguments)


@pytest.mark.parametrize(
    ("platform", "backend", "refused"),
    [
        ("linux", "auto", True),
        ("linux", "dali", True),
        ("linux", "pil", False),
        ("darwin", "auto", False),
        ("darwin", "dali", True),
    ],
)
def test_missing_dali_is_an_error_where_it_could_be_installed(
    index: ImageIndex,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    backend: str,
    refused: bool,
) -> None:
    monkeypatch.setattr(dali, "AVAILABLE", False)
    monkeypatch.setattr("sys.platform", platform)
    if refused:
        with pytest.raises(ValueError, match="pip install nvidia-dali-cuda130"):
            build(index, backend=backend)
    else:
        assert len(all_ids(build(index, backend=backend).epoch(0))) == 23


@pytest.mark.gpu
@needs_dali
@pytest.mark.parametrize("n_views", [1, 2])
def test_views_on_the_gpu(index: ImageIndex, n_views: int) -> None:
    """The same graph decodes on the GPU: same ids, nearly the same pixels, on that device."""
    recipes = [GEOMETRY] * n_views
    on_gpu = list(build(index, *recipes, device="cuda").epoch(0))
    on_cpu = list(build(index, *recipes, device="cpu").epoch(0))
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert torch.equal(a.ids, b.ids) and a.ids.device.type == "cpu"
        for x, y in zip(a.views, b.views, strict=True):
            assert x.device.type == "cuda"
            assert (x.cpu() - y).abs().mean() < 3  # grey levels


def test_epochs_run_on_without_end(index: ImageIndex) -> None:
    """The same batches as one epoch after the other."""
    built = build(index, batch_size=10)
    endless = built.epochs()
    run_on = [next(endless) for _ in range(2 * built.steps_per_epoch)]
    one_by_one = [batch for epoch in (0, 1) for batch in built.epoch(epoch)]
    for a, b in zip(run_on, one_by_one, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.views[0], b.views[0])


BLOCKS: dict[str, Any] = {"order": "blocks", "window": 2}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, BLOCKS], ids=["global", "blocks"])
def test_the_state_of_every_step_gives_the_identical_remainder(
    index: ImageIndex, backend: str, options: dict[str, Any]
) -> None:
    """Two views, pixel by pixel; the state counts what was handed out, not what was read ahead."""
    running = build(index, EVERYTHING, GEOMETRY, backend=backend, **options)
    whole, states = [], [running.state() | {"epoch": 2}]
    for batch in running.epoch(2):
        whole.append(batch)
        states.append(running.state())
    assert [state["position"] for state in states] == [0, 5, 10, 15, 20, 23]
    restored = build(index, EVERYTHING, GEOMETRY, backend=backend, **options)
    for step, state in enumerate(states):
        assert all(type(value) is int for value in state.values())
        rest = list(restored.resume(state))
        assert len(rest) == len(whole) - step
        for a, b in zip(whole[step:], rest, strict=True):
            assert torch.equal(a.ids, b.ids)
            assert all(map(torch.equal, a.views, b.views))


@pytest.mark.parametrize("options", [{}, BLOCKS], ids=["global", "blocks"])
@pytest.mark.parametrize("world", [2, 4])
def test_every_state_can_be_resumed_on_another_number_of_ranks(
    index: ImageIndex, options: dict[str, Any], world: int
) -> None:
    options = {"batch_size": 8, "backend": "pil"} | options
    alone = build(index, EVERYTHING, EVERYTHING, **options)
    whole = [(alone.state(), batch) for batch in alone.epoch(1)]
    ranks = [
        build(index, EVERYTHING, EVERYTHING, world=world, rank=r, **options) for r in range(world)
    ]
    for step in range(len(whole)):
        state = whole[step - 1][0] if step else {**whole[0][0], "position": 0}
        parts = [list(rank.resume(state)) for rank in ranks]
        assert len({len(part) for part in parts}) == 1
        for (_, together), *local in zip(whole[step:], *parts, strict=True):
            for view in range(2):
                union, single = pixels_by_id(local, view), pixels_by_id([together], view)
                assert union.keys() == single.keys()
                assert all(torch.equal(union[i], single[i]) for i in single)
    assert {rank.state()["position"] for rank in ranks} == {23}
    halfway = ranks[0].resume(whole[0][0])
    next(halfway)
    assert all_ids(alone.resume(ranks[0].state())) == all_ids(b for _, b in whole[2:])


def test_blocks_follow_their_order(index: ImageIndex) -> None:
    spans = [(c.start, c.stop) for c in index.manifest.containers]
    built = build(index, backend="pil", seed=4, **BLOCKS)
    for epoch in range(3):
        expected = order(4, epoch, 23, mode="blocks", spans=spans, window=2)
        assert all_ids(built.epoch(epoch)) == expected.tolist()
    assert sorted(all_ids(built.epoch(0))) == list(range(23))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "was saved with seed 0, this loader has 1"),
        ({"order": "global"}, "was saved with order 1, this loader has 0"),
        ({"window": 3}, "was saved with window 2, this loader has 3"),
        ({"shuffle": False}, "was saved with order 1, this loader has 2"),
    ],
)
def test_a_state_of_another_order_is_refused(
    index: ImageIndex, options: dict[str, Any], message: str
) -> None:
    state = build(index, backend="pil", **BLOCKS).state()
    with pytest.raises(ValueError, match=message):
        build(index, backend="pil", **(BLOCKS | options)).resume(state)


def with_tombstones(color_set: Path, out: Path, dead: list[int]) -> ImageIndex:
    """A copy of the data set in which these ids have no image."""
    shutil.copytree(color_set, out)
    rows = np.load(out / "index.npy")
    rows["length"][dead] = 0
    np.save(out / "index.npy", rows)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    (out / "manifest.json").write_text(
        json.dumps(manifest | {"tombstones": len(dead)}), encoding="utf-8"
    )
    return ImageIndex(out)


@pytest.mark.parametrize("options", [{}, BLOCKS, {"shuffle": False}])
def test_tombstones_never_come(color_set: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    dead = [0, 7, *range(10, 20)]  # all of the second container
    index = with_tombstones(color_set, tmp_path / "set", dead)
    built = build(index, backend="pil", batch_size=4, **options)
    assert (built.samples_per_epoch, built.steps_per_epoch) == (11, 3)
    for epoch in range(3):
        batches = list(built.epoch(epoch))
        assert sorted(all_ids(batches)) == sorted(set(range(23)) - set(dead))
        for batch in batches:
            assert shown_ids(index, batch.views[0]) == batch.ids.tolist()
