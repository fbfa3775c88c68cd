"""Sums over tiles and over whole photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qatie_cli.engines import floating
from qatie_cli.model import moments
from qatie_cli.model.config import SIZE_MULTIPLE
from qatie_cli.model.moments import Sums, tiles


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (321, 207)])
@pytest.mark.parametrize("part", [slice(None), slice(1, None, 2)])
def test_sums_of_integers_are_exact(size, part):
    x = np.random.default_rng(1).integers(0, 256, (*size, 10), np.uint8)[..., part]
    found = Sums.of(x)
    values = x.astype(np.int64)
    assert found.count == size[0] * size[1]
    np.testing.assert_array_equal(found.total, values.sum((0, 1)))
    np.testing.assert_array_equal(found.squares, (values * values).sum((0, 1)))


@pytest.mark.parametrize("kind", ["integers", "floats"])
def test_moments_are_mean_and_biased_variance(kind):
    rng = np.random.default_rng(1)
    if kind == "integers":
        x = rng.integers(0, 256, (50, 41, 3), np.uint8)
        mean, variance = moments.of_whole("any", x)
    else:
        x = rng.normal(7, 3, (50, 41, 3)).astype(np.float32)
        mean, variance = moments.of_whole("any", torch.from_numpy(x), floating._sums)
    np.testing.assert_allclose(mean, x.mean((0, 1), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 1), dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (64, 1000), (1104, 1504)])
@pytest.mark.parametrize("side", [8, 64, 512, 4096])
def test_tiles_cover_every_pixel_once_and_see_the_halo(size, side):
    if side == 8 and size[0] > 100:
        pytest.skip("too many tiles to count by hand")
    covered = np.zeros(size, int)
    for tile in tiles(*size, side):
        top, bottom, left, right = tile.core
        covered[top:bottom, left:right] += 1
        assert all(edge % SIZE_MULTIPLE == 0 for edge in (*tile.core, *tile.seen))
        assert tile.seen[0] == max(0, top - moments.HALO)
        assert tile.seen[3] == min(size[1], right + moments.HALO)
        for scale in (2, 4, 8):
            seen = np.zeros(((tile.seen[1] - tile.seen[0]) // scale, (tile.seen[3] - tile.seen[2]) // scale, 1))
            assert tile.core_of(seen).shape[:2] == ((bottom - top) // scale, (right - left) // scale)
    assert (covered == 1).all()
