"""Enhancing one photo: sizes, depths, strength."""

from __future__ import annotations

import numpy as np
import pytest
from samples import EVERY_NETWORK

from qatie_cli import engines
from qatie_cli.enhance import tiling
from qatie_cli.enhance.pixels import enhance
from qatie_cli.model import moments


@pytest.fixture(scope="module")
def engine(weights) -> engines.Engine:
    return engines.load(weights, "float")


def test_strength_zero_returns_the_photo_itself(engine, coffee):
    assert np.array_equal(enhance(coffee, engine, 0.0), coffee)


def test_strength_blends_between_photo_and_full_effect(engine, coffee):
    full, half = enhance(coffee, engine).astype(int), enhance(coffee, engine, 0.5).astype(int)
    assert np.abs(full - coffee).mean() > 2
    assert np.abs(half - (full + coffee) / 2).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5), (33, 31), (40, 8)])
@pytest.mark.parametrize("name", ["float", "auto"])
def test_any_size_comes_back_in_its_size(size, name, weights, coffee):
    photo = np.ascontiguousarray(coffee[: size[0], : size[1]])
    out = enhance(photo, engines.load(weights, name))
    assert out.shape == photo.shape
    assert out.dtype == np.uint8


def test_strips_do_not_show(engine, coffee, monkeypatch):
    whole = enhance(coffee, engine)
    monkeypatch.setattr(tiling, "STRIP_PIXELS", 600 * 7)
    difference = np.abs(enhance(coffee, engine).astype(int) - whole)
    assert difference.max() <= 1  # the order of a sum may decide a tie
    assert (difference > 0).mean() < 1e-4


def test_sixteen_bit_keeps_its_precision(engine, coffee):
    """A ramp too fine for 8 bit stays a ramp."""
    deep = coffee.astype(np.uint16) * 257
    fine = enhance(deep, engine)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - enhance(coffee, engine)).max() <= 0.51
    ramp = np.linspace(20_000, 22_000, 64 * 512).astype(np.uint16).reshape(64, 512, 1).repeat(3, axis=2)
    assert len(np.unique(enhance(ramp, engine))) > 1500


def test_the_photo_given_is_not_changed(engine, coffee):
    before = coffee.copy()
    enhance(coffee, engine)
    assert np.array_equal(coffee, before)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(engine, wrong):
    with pytest.raises(ValueError, match="a photo is"):
        enhance(wrong, engine)


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_other_strengths_are_refused(engine, coffee, strength):
    with pytest.raises(ValueError, match="strength"):
        enhance(coffee, engine, strength)


@pytest.mark.parametrize("name", ["float", "auto"])
@pytest.mark.parametrize("side", [64, 200])
@pytest.mark.parametrize("size", [(272, 400), (273, 401), (40, 600)])
def test_tiles_give_what_the_whole_photo_gives(name, side, size, weights, coffee):
    photo = np.ascontiguousarray(coffee[: size[0], : size[1]])
    _check_tiles(engines.load(weights, name), photo, side)


@EVERY_NETWORK
@pytest.mark.parametrize("name", ["float", "auto"])
def test_tiles_of_every_network_give_what_the_whole_photo_gives(name, weights, coffee):
    _check_tiles(engines.load(weights, name), np.ascontiguousarray(coffee[:200, :329]), 64)


def _check_tiles(used: engines.Engine, photo: np.ndarray, side: int) -> None:
    difference = np.abs(enhance(photo, used, tile_side=side).astype(int) - enhance(photo, used))
    if used.name == "float":
        assert difference.max() <= 1  # the order of a sum may decide a tie
        assert (difference > 0).mean() < 1e-3
    else:
        assert difference.max() == 0


def test_a_tile_by_its_own_statistics_would_show(weights, coffee, monkeypatch):
    """The reason for sharing them: without it this difference is large."""
    used = engines.load(weights, "auto")
    whole = enhance(coffee, used)
    monkeypatch.setattr(tiling, "of_tiles", lambda parts, run: moments.of_whole)
    assert np.abs(enhance(coffee, used, tile_side=200).astype(int) - whole).max() > 3
