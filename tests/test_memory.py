"""Estimates, and photos that wait for each other's memory."""

from __future__ import annotations

import threading

import pytest

from qatie_cli.enhance import memory
from qatie_cli.errors import PhotoError


def test_a_photo_is_worked_on_whole_where_memory_allows_and_in_tiles_where_it_does_not():
    assert memory.tile_side(4000, 3000, 100, 4 << 30) is None
    side = memory.tile_side(12000, 9000, 100, 1_300_000_000)
    assert side % 8 == 0
    seen = (side + 160) ** 2 * 100 + memory.held_bytes(12000, 9000)
    assert seen <= 1_300_000_000
    assert memory.tile_side(20000, 500, 100, 600_000_000) >= side


def test_a_photo_that_no_tile_makes_small_enough_is_refused_with_figures():
    with pytest.raises(PhotoError, match=r"108 megapixels.* MB") as refused:
        memory.tile_side(12000, 9000, 100, 500_000_000)
    assert "--max-memory" in refused.value.hint


def test_the_free_memory_is_a_positive_number():
    assert memory.free_bytes() > 1 << 20
    assert memory.resident_bytes() > 1 << 20


def test_a_photo_waits_until_another_has_given_its_memory_back():
    budget = memory.Budget(100)
    budget.take(70)
    went_on = threading.Event()
    waiting = threading.Thread(target=lambda: (budget.take(60), went_on.set()))
    waiting.start()
    assert not went_on.wait(0.1)
    budget.give_back(70)
    assert went_on.wait(5)
    waiting.join()


def test_a_photo_larger_than_the_budget_gets_all_of_it():
    budget = memory.Budget(100)
    budget.take(1000)
    budget.give_back(1000)


def test_nobody_waits_for_a_budget_that_is_closed():
    budget = memory.Budget(100)
    with budget.closing():
        budget.take(100)
        waiting = threading.Thread(target=lambda: budget.take(100))
        waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()
