"""Fast mode: the residual of a reduced photo at full resolution."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from samples import random_weights

from qatie_cli import engines, metrics
from qatie_cli.enhance import guided, memory
from qatie_cli.enhance import pixels as library
from qatie_cli.enhance.guided import GuidedResidual
from qatie_cli.enhance.pixels import enhance, fast_reduction
from qatie_cli.model import checkpoint
from qatie_cli.model import shipped as weights_store


@pytest.fixture(scope="module")
def reduced(coffee) -> np.ndarray:
    return np.ascontiguousarray(coffee[:, :, :].reshape(200, 2, 300, 2, 3).mean((1, 3)).round().astype(np.uint8))


def _full(lines: GuidedResidual, photo: np.ndarray, rows: int) -> np.ndarray:
    part = photo.astype(np.float32) / 255
    return np.concatenate([lines.rows(top, part[top : top + rows]) for top in range(0, len(part), rows)])


def test_a_residual_that_is_a_line_of_the_photo_comes_back_in_full(coffee, reduced):
    """Edges of the full photo, though the residual was found on the reduced one."""
    line = np.float32([0.2, -0.3, 0.1]), np.float32(0.05)
    residual = reduced.astype(np.float32) / 255 * line[0] + line[1]
    found = _full(GuidedResidual(reduced, residual, 2), coffee, 400)
    expected = coffee.astype(np.float32) / 255 * line[0] + line[1]
    error = np.abs(found - expected)
    assert np.median(error) < 0.002
    assert error.mean() < 0.004
    enlarged = F.interpolate(torch.from_numpy(residual).permute(2, 0, 1)[None], scale_factor=2, mode="bilinear")
    assert error.mean() < 0.5 * np.abs(enlarged[0].permute(1, 2, 0).numpy() - expected).mean()


def test_where_the_photo_is_flat_the_residual_is_enlarged_as_it_is():
    flat = np.full((40, 40, 3), 90, np.uint8)
    residual = np.full((40, 40, 3), 0.07, np.float32)
    found = _full(GuidedResidual(flat, residual, 3), np.full((120, 120, 3), 90, np.uint8), 120)
    np.testing.assert_allclose(found, 0.07, atol=1e-5)


@pytest.mark.parametrize("rows", [2, 30, 64])
def test_strips_make_no_difference(coffee, reduced, rows):
    rng = np.random.default_rng(0)
    residual = rng.normal(0, 0.05, reduced.shape).astype(np.float32)
    whole = _full(GuidedResidual(reduced, residual, 2), coffee, 400)
    np.testing.assert_allclose(_full(GuidedResidual(reduced, residual, 2), coffee, rows), whole, atol=2e-5)


def test_means_are_those_of_the_pixels_inside():
    x = np.random.default_rng(0).random((2, 9, 11), np.float32)
    expected = F.avg_pool2d(torch.from_numpy(x), 2 * guided.RADIUS + 1, 1, guided.RADIUS, count_include_pad=False)
    np.testing.assert_allclose(guided._mean(x), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(400, 600), (397, 593), (40, 600), (9, 5), (1, 1)])
@pytest.mark.parametrize("factor", [2, 3])
def test_photos_of_any_size_keep_it(weights, coffee, size, factor):
    photo = np.ascontiguousarray(coffee[: size[0], : size[1]])
    fast = enhance(photo, engines.load(weights), reduction=factor)
    assert fast.shape == photo.shape
    assert fast.dtype == photo.dtype


def test_fast_and_full_mode_agree_where_the_network_changes_tone(coffee, astronaut):
    engine = engines.load(random_weights([coffee, astronaut]))
    full = enhance(coffee, engine)
    assert metrics.psnr(enhance(coffee, engine, reduction=2), full) > metrics.psnr(coffee, full) + 3


def test_fast_mode_in_tiles_is_fast_mode(weights, coffee):
    engine = engines.load(weights)
    whole, tiled = (enhance(coffee, engine, reduction=2, tile_side=side) for side in (None, 64))
    assert np.array_equal(whole, tiled)


def test_noise_goes_up_to_the_edges():
    """The network's convolutions see zeros beyond them; the photo goes on mirrored instead."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 5, (256, 384, 1)).repeat(2, axis=0).repeat(2, axis=1)
    noisy = np.clip(130 + noise.repeat(3, axis=2), 0, 255).round().astype(np.uint8)
    shipped = checkpoint.read(weights_store.manifest()["qatie-c32"].packaged)
    untoned = dataclasses.replace(
        shipped,
        config=dataclasses.replace(shipped.config, tone=None),
        state={name: tensor for name, tensor in shipped.state.items() if not name.startswith("tone.")},
    )
    left = enhance(noisy, engines.load(untoned), reduction=2)[..., 1].astype(float)
    inside = left[64:-64, 64:-64].std()
    assert inside < 0.7 * noisy[..., 1].std()
    for rim in (left[:12, 64:-64], left[-12:, 64:-64], left[64:-64, :12], left[64:-64, -12:]):
        assert 0.85 < rim.std() / inside < 1.15


def test_memory_is_reckoned_for_what_the_network_sees(weights, coffee, monkeypatch):
    seen = []
    residual_of = library.residual_of

    def recorded(network, pixels, tile_side):
        seen.append(pixels.shape)
        return residual_of(network, pixels, tile_side)

    monkeypatch.setattr(library, "residual_of", recorded)
    enhance(coffee, engines.load(weights), reduction=2)
    width, height = memory.seen_sides(coffee.shape[1], coffee.shape[0], 2)
    assert seen == [(-(-height // 8) * 8, -(-width // 8) * 8, 3)]  # sides are brought to multiples of 8


def test_sixteen_bit_photos_stay_sixteen_bit(weights, coffee):
    photo = coffee[:80, :120].astype(np.uint16) * 257 + 3
    fast = enhance(np.ascontiguousarray(photo), engines.load(weights), reduction=2)
    assert fast.dtype == np.uint16
    assert len(np.unique(fast)) > 2000


@pytest.mark.parametrize(
    ("width", "height", "factor"), [(1920, 1080, 1), (2000, 2000, 1), (4032, 3024, 2), (12000, 9000, 6), (1, 1, 1)]
)
def test_only_large_photos_are_reduced(width, height, factor):
    assert fast_reduction(width, height) == factor
