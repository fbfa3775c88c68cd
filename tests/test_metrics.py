"""Metrics against values from elsewhere: closed forms, published colours, scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import metrics as theirs

from qatie_cli import metrics


def _even(*colour: int) -> np.ndarray:
    return np.full((32, 32, 3), colour, np.uint8)


@pytest.mark.parametrize("step", [1, 5, 255])
def test_psnr_of_an_even_difference_is_its_closed_form(step):
    before = np.zeros((8, 9, 3), np.uint8)
    assert metrics.psnr(before, before + np.uint8(step)) == pytest.approx(20 * math.log10(255 / step), abs=1e-9)
    one_channel = before.copy()
    one_channel[..., 1] = step
    assert metrics.psnr(before, one_channel) == pytest.approx(
        20 * math.log10(255 / step) + 10 * math.log10(3), abs=1e-5
    )


def test_psnr_is_that_of_scikit_image_and_bounded_where_a_mean_is_taken(coffee):
    noisy = (coffee * 0.9).astype(np.uint8)
    assert metrics.psnr(noisy, coffee) == pytest.approx(theirs.peak_signal_noise_ratio(coffee, noisy), abs=1e-3)
    assert metrics.psnr(coffee, coffee) == math.inf
    assert metrics.finite_psnr(coffee, coffee) == metrics.BEST_DB


def test_ssim_of_two_even_pictures_is_its_closed_form():
    """Wang et al. 2004, equation 13: without variance only the luminance term is left, with C1 = (0.01 * 255)^2."""
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert metrics.ssim(_even(100, 100, 100), _even(150, 150, 150)) == pytest.approx(expected, abs=1e-6)


def test_ssim_has_the_published_window(coffee):
    """Equations 14 to 16, written out at one pixel: an 11x11 Gaussian of 1.5 px, biased."""
    a, b = coffee[100:111, 200:211], coffee[100:111, 203:214]
    at = np.arange(11) - 5
    window = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(window, window) / np.outer(window, window).sum()
    expected = []
    for channel in range(3):
        x, y = a[..., channel].astype(float), b[..., channel].astype(float)
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * x * x).sum() - mx * mx, (window * y * y).sum() - my * my
        both = (window * x * y).sum() - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        expected.append((2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2)))
    assert metrics.ssim(a, b) == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        # Of the sRGB primaries under D65, as colour calculators give them.
        ((255, 0, 0), (0, 255, 0), 86.61),
        ((255, 0, 0), (0, 0, 255), 52.88),
        ((0, 255, 0), (0, 0, 255), 83.19),
        ((0, 0, 0), (255, 255, 255), 100.0),
        ((10, 20, 30), (10, 20, 30), 0.0),
    ],
)
def test_ciede2000_of_known_colours(first, second, published):
    assert metrics.ciede2000(_even(*first), _even(*second)) == pytest.approx(published, abs=0.02)


def test_aligning_tone_takes_a_cubic_curve_away_and_leaves_noise(coffee):
    x = coffee.astype(float) / 255
    curved = np.clip(255 * (0.1 + 0.5 * x + 0.2 * x**2 - 0.1 * x**3), 0, 255).round().astype(np.uint8)
    aligned = metrics.tone_aligned(coffee, curved)
    assert metrics.psnr(coffee, curved) < 25
    assert np.abs(aligned - curved).max() < 1.2
    noise = np.random.default_rng(0).normal(0, 10, coffee.shape)
    assert (metrics.tone_aligned(coffee + noise, curved) - curved).std() > 3
