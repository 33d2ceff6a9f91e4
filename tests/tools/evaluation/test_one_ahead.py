"""Work one item ahead of its consumer: order, errors, and how far ahead."""

from __future__ import annotations

import threading

import pytest

from coke.tools.evaluation.one_ahead import one_ahead


def test_each_item_with_its_result_in_order() -> None:
    assert [*one_ahead(lambda x: x * x, range(5))] == [(i, i * i) for i in range(5)]
    assert [*one_ahead(str, [7])] == [(7, "7")]
    assert [*one_ahead(str, [])] == []


def test_the_next_item_is_worked_on_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def work(i: int) -> int:
        begun[i].set()
        return i

    for i, _ in one_ahead(work, range(3)):
        if i < 2:
            assert begun[i + 1].wait(timeout=60)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_at_its_items_turn(error: type[BaseException]) -> None:
    def work(i: int) -> int:
        if i == 2:
            raise error
        return i

    results = one_ahead(work, range(5))
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(error):
        next(results)


def test_an_abandoned_iteration_takes_no_further_items() -> None:
    taken = []

    def items() -> object:
        for i in range(9):
            taken.append(i)
            yield i

    for i, _ in one_ahead(str, items()):  # type: ignore[arg-type]
        if i == 1:
            break
    assert taken == [0, 1, 2]
