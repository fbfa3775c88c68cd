"""Metrics against values from elsewhere: closed forms, published colours, scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import metrics as theirs
from skimage.color import deltaE_ciede2000

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


def _srgb(lab: tuple[float, float, float]) -> np.ndarray:
    """An even picture of a CIELAB colour (CIE 15) under D65 in sRGB (IEC 61966-2-1), nominal range 0..1, unrounded."""
    lightness, a, b = lab
    f = (lightness + 16) / 116 + np.array([a / 500, 0, -b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1, 1.08883]
    linear = np.linalg.solve([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], xyz)
    assert linear.min() >= 0
    assert linear.max() <= 1
    return np.full((8, 8, 3), np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear))


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((50, 2.5, 0), (56, -27, -3), 31.9030),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((50, 2.5, 0), (50, 3.1736, 0.5854), 1.0000),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
        ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_is_that_of_the_published_pairs(first, second, published):
    """Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula", Color Research and Application 30 (1), table 1
    (doi:10.1002/col.20070). It is in CIELAB to four decimals; sRGB's matrices, rounded to four, cost up to 0.01."""
    assert deltaE_ciede2000(np.array(first), np.array(second)) == pytest.approx(published, abs=6e-5)
    a, b = _srgb(first), _srgb(second)
    assert metrics.ciede2000(a, b) == pytest.approx(published, abs=0.01)
    b[:4] = a[:4]
    assert metrics.ciede2000(a, b) == pytest.approx(published / 2, abs=0.005)


def test_ciede2000_of_photos_in_8_bit():
    """Black and white differ by 100 of lightness alone, which the formula takes as it is around L* = 50."""
    assert metrics.ciede2000(_even(0, 0, 0), _even(255, 255, 255)) == pytest.approx(100, abs=1e-3)
    assert metrics.ciede2000(_even(10, 20, 30), _even(10, 20, 30)) == 0


def test_aligning_tone_takes_a_cubic_curve_away_and_leaves_noise(coffee):
    x = coffee.astype(float) / 255
    curved = np.clip(255 * (0.1 + 0.5 * x + 0.2 * x**2 - 0.1 * x**3), 0, 255).round().astype(np.uint8)
    aligned = metrics.tone_aligned(coffee, curved)
    assert metrics.psnr(coffee, curved) < 25
    assert np.abs(aligned - curved).max() < 1.2
    noise = np.random.default_rng(0).normal(0, 10, coffee.shape)
    assert (metrics.tone_aligned(coffee + noise, curved) - curved).std() > 3
