"""Sums over tiles and over whole photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qatie_cli.model import moments
from qatie_cli.model.config import SIZE_MULTIPLE
from qatie_cli.model.moments import Sums, tiles


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (321, 207)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sums_of_integers_are_exact(size, layout):
    x = torch.randint(0, 256, (1, 5, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = Sums.of(x.contiguous(memory_format=layout))
    values = x[0].to(torch.int64)
    assert found.count == size[0] * size[1]
    assert torch.equal(found.total.long(), values.sum((1, 2)))
    assert torch.equal(found.squares.long(), (values * values).sum((1, 2)))


def test_moments_are_mean_and_biased_variance():
    x = torch.randn(1, 3, 50, 41, generator=torch.Generator().manual_seed(1)) * 3 + 7
    mean, variance = moments.of_whole("any", x)
    assert torch.allclose(mean, x.double().mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(variance, x.double().var((0, 2, 3), unbiased=False), atol=1e-4)


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
            seen = torch.zeros(1, 1, (tile.seen[1] - tile.seen[0]) // scale, (tile.seen[3] - tile.seen[2]) // scale)
            assert tile.core_of(seen).shape[2:] == ((bottom - top) // scale, (right - left) // scale)
    assert (covered == 1).all()
