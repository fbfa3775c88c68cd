"""Laws of sums, tiles and quantization, over generated sizes, values and ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import examples
from samples import random_weights

from qatie_cli import engines
from qatie_cli.engines import Engine
from qatie_cli.enhance.tiling import residual_of
from qatie_cli.model.moments import Sums, of_tiles, of_whole, tiles
from qatie_cli.model.quantization import scheme
from qatie_cli.model.quantization.fake import FakeQuantizer
from qatie_cli.model.quantization.scheme import SMALLEST_SCALE, Activation

sides = st.integers(1, 24).map(lambda n: 8 * n)
seeds = st.integers(0, 2**32 - 1)


def _pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth and noisy parts beside each other."""
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, width)[None, :, None] * rng.random(channels)
    return (smooth + rng.integers(0, 56, (height, width, channels))).astype(np.uint8)


# --- sums and tiles -----------------------------------------------------------------------------------------------


@examples(40)
@given(seeds, st.integers(1, 80), st.integers(1, 40), st.integers(1, 9), st.data())
def test_sums_of_parts_add_up_to_those_of_the_whole(seed, height, width, channels, data):
    x = _pixels(seed, height, width, channels)
    cut = data.draw(st.integers(1, height))
    whole = Sums.of(x)
    parts = Sums.of(x[:cut]) + Sums.of(x[cut:]) if cut < height else Sums.of(x)
    assert parts.count == whole.count == height * width
    np.testing.assert_array_equal(parts.total, whole.total)
    np.testing.assert_array_equal(parts.squares, whole.squares)
    mean, variance = whole.mean_variance()
    np.testing.assert_allclose(mean, x.mean((0, 1)))
    np.testing.assert_allclose(variance, x.var((0, 1)), atol=1e-9)


@examples(40)
@given(seeds, sides, sides, sides)
def test_moments_over_tiles_are_those_of_the_whole(seed, height, width, side):
    """Two norms in a row: the second sees what the first made of the whole photo."""
    photo = _pixels(seed, height, width)

    def run(tile, moments):
        top, bottom, left, right = tile.seen
        x = photo[top:bottom, left:right]
        mean, variance = moments("first", x)
        centred = np.clip(np.rint((x - mean) / np.sqrt(variance + 1) * 30 + 128), 0, 255).astype(np.uint8)
        return moments("second", centred)

    found = of_tiles(tiles(height, width, side), run)
    whole = {}

    def remember(name, x, sums=None):
        whole[name] = of_whole(name, x, sums)
        return whole[name]

    run(tiles(height, width, 4096)[0], remember)
    for name, (mean, variance) in whole.items():
        np.testing.assert_array_equal(found(name, None)[0], mean)
        np.testing.assert_array_equal(found(name, None)[1], variance)


@pytest.fixture(scope="module", params=["auto", "float"])
def engine(request) -> Engine:
    rng = np.random.default_rng(5)
    seen = [np.kron(rng.integers(0, 256, (16, 20, 3), np.uint8), np.ones((8, 8, 1), np.uint8))]
    return engines.load(random_weights(seen, 4, None), request.param)


@examples(6, shrink=False)
@given(seeds, sides, sides, st.integers(1, 12).map(lambda n: 8 * n))
def test_a_residual_in_tiles_is_that_of_the_whole_photo(engine, seed, height, width, side):
    photo = _pixels(seed, height, width)
    whole, tiled = (residual_of(engine.network, photo, s) for s in (None, side))
    assert np.ptp(whole) > 0.01
    if engine.name == "float":  # sums in another order
        np.testing.assert_allclose(tiled, whole, atol=2e-4)
    else:
        np.testing.assert_array_equal(tiled, whole)


# --- quantization -------------------------------------------------------------------------------------------------

ends = st.floats(-1e4, 1e4, width=32)


@examples(120)
@given(ends, ends)
def test_a_range_holds_its_ends_and_zero(one, other):
    low, high = min(one, other), max(one, other)
    at = Activation.covering(low, high)
    assert 0 <= at.zero_point <= 255
    assert at.real(np.array([at.zero_point]))[0] == 0
    reached = at.real(at.stored(np.array([low, high, 0.0])))
    assert np.abs(reached - [low, high, 0.0]).max() <= at.scale * 0.51
    finest = (max(high, 0) - min(low, 0)) / 255
    assert at.scale == pytest.approx(max(finest, SMALLEST_SCALE), rel=1e-6)


@examples(80)
@given(ends, ends, seeds)
def test_stored_values_come_back_within_half_a_step(one, other, seed):
    at = Activation.covering(min(one, other), max(one, other))
    levels = np.arange(256)
    np.testing.assert_array_equal(at.stored(at.real(levels)), levels)
    low, high = at.ends
    values = np.random.default_rng(seed).uniform(low, high, 200)
    assert np.abs(at.real(at.stored(values)) - values).max() <= at.scale * (0.5 + 1e-6)
    assert at.stored(np.array([low - 10 * at.scale, high + 10 * at.scale])).tolist() == [0, 255]
    order = np.sort(values)
    assert (np.diff(at.stored(order).astype(int)) >= 0).all()


@examples(60)
@given(ends, ends, seeds)
def test_training_rounds_activations_as_they_are_stored(one, other, seed):
    at = Activation.covering(min(one, other), max(one, other))
    low, high = at.ends
    values = np.random.default_rng(seed).uniform(2 * low, 2 * high, 200).astype(np.float32)
    seen = FakeQuantizer({"here": at}).activation("here", torch.from_numpy(values)).numpy()
    difference = np.abs(seen - at.real(at.stored(values)))
    ties = np.abs(values / at.scale % 1 - 0.5) < 1e-3  # single precision may decide them otherwise
    assert difference[~ties].max(initial=0) <= 1e-4 * at.scale


weights = st.tuples(seeds, st.integers(1, 5), st.integers(1, 5), st.floats(-6, 3)).map(
    lambda w: (np.random.default_rng(w[0]).normal(0, 10 ** w[3], (w[1], w[2], 3, 3))).astype(np.float32)
)


@examples(60)
@given(weights)
def test_integer_weights_are_within_half_a_step_and_use_their_bits(weight):
    values, scales = scheme.integer_weight(weight)
    assert values.dtype == np.int8
    assert values.min() >= -64
    assert values.max() <= 63
    steps = scales.reshape(-1, 1, 1, 1)
    assert (np.abs(values * steps - weight) <= steps * 0.5001).all()
    for channel, scale in zip(values, scales, strict=True):
        assert channel.max() == 63 or channel.min() == -64 or scale == np.float32(SMALLEST_SCALE)


@examples(40)
@given(weights, st.integers(-3, 6))
def test_integers_do_not_change_with_the_unit_of_a_channel(weight, power):
    values, scales = scheme.integer_weight(weight)
    again, larger = scheme.integer_weight(weight * np.float32(2.0**power))
    fine = (scales > SMALLEST_SCALE) & (larger > SMALLEST_SCALE)
    np.testing.assert_array_equal(again[fine], values[fine])
    np.testing.assert_array_equal(larger[fine], scales[fine] * np.float32(2.0**power))


@examples(30)
@given(weights)
def test_rounded_weights_are_rounded_to_themselves(weight):
    values, scales = scheme.integer_weight(weight)
    again, same = scheme.integer_weight((values * scales.reshape(-1, 1, 1, 1)).astype(np.float32))
    np.testing.assert_allclose(same, scales, rtol=1e-6)
    np.testing.assert_array_equal(again, values)
