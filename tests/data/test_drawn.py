"""Drawn surfaces: standardised, one for each randomness, and no noise to the eye that knows where the light is."""

from __future__ import annotations

import numpy as np

from qatie_cli.data import drawn


def _along(plane: np.ndarray, step: tuple[int, int]) -> float:
    """Correlation with itself a step further; `plane` repeats at its edges."""
    return float((plane * np.roll(plane, step, (0, 1))).mean())


def test_a_surface_is_standardised_and_repeatable():
    planes = [drawn.surface(np.random.default_rng(seed), 96) for seed in range(20)]
    for plane in planes:
        assert plane.shape == (96, 96)
        assert plane.dtype == np.float32
        assert abs(plane.mean()) < 1e-4
        assert abs(plane.std() - 1) < 1e-4
    assert np.array_equal(planes[3], drawn.surface(np.random.default_rng(3), 96))
    assert not np.array_equal(planes[3], planes[4])


def test_a_surface_looks_unlike_noise():
    """Correlated noise is as correlated in every direction and no value is far out; a lit surface is neither."""
    planes = [drawn.surface(np.random.default_rng(seed), 128) for seed in range(60)]
    ways = [[_along(plane, step) for step in ((0, 2), (2, 0), (2, 2), (2, -2))] for plane in planes]
    assert np.mean(np.ptp(ways, axis=1)) > 0.3
    assert np.mean([(plane**4).mean() for plane in planes]) > 4  # 3 where values are normally distributed
    assert np.mean([abs(_along(plane, (0, 12))) for plane in planes]) < 0.1  # it is fine
