"""Image quality metrics of 8-bit photos, (H, W, 3)."""

from __future__ import annotations

import numpy as np

BEST_DB = 99.0  # stands in for the infinite PSNR of equal photos, so that means stay finite


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit values over all channels; infinite for equal photos."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def finite_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB, at most `BEST_DB`."""
    return min(BEST_DB, psnr(a, b))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window of 1.5 px, biased covariance), mean of the channels."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def ciede2000(a: np.ndarray, b: np.ndarray) -> float:
    """Mean colour difference CIEDE2000 (CIE 142-2001) of sRGB photos under D65; about 1 is just noticeable."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    return float(np.mean(deltaE_ciede2000(rgb2lab(a), rgb2lab(b))))


def tone_aligned(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`output` with a cubic curve per channel fitted to `target` by least squares, which leaves detail and noise.

    Returns float32 (H, W, 3), nominal range 0..255.
    """
    aligned = np.empty(output.shape, np.float32)
    for channel in range(output.shape[2]):
        x = output[..., channel].astype(np.float64).ravel() / 255
        powers = np.stack([np.ones_like(x), x, x**2, x**3], axis=1)
        fit, *_ = np.linalg.lstsq(powers.T @ powers, powers.T @ target[..., channel].ravel(), rcond=None)
        aligned[..., channel] = (powers @ fit).reshape(output.shape[:2])
    return aligned
