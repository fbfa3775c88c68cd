"""Training losses on photos (N, 3, H, W), nominal range 0..1.

Every loss is a mean over the photos, so the loss of a batch is the mean of its parts' losses. It is 0 for equal photos
(except the cosine's for black ones).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_SQUARED_ERROR = 1e-8  # 80 dB, beyond the precision of 8 bits
_DETAIL_SQUARED_ERROR = 5e-6  # 53 dB: half a level of 8 bit
_TONE_SQUARED_ERROR = 1e-3  # 30 dB
_EXACT_SQUARED_ERROR, _EXACT_WEIGHT = 5e-5, 0.4
_MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term of the network's loss.

    Behind a tone stage, the terms compare with the restored photo at the tone of the input (`matched_tone`), put
    through the same tone stage: the network then learns noise and detail, undisturbed by the tone stage's errors, which
    it cannot predict.
    """

    l1: float = 1.0
    ssim: float = 0.15
    gradient: float = 0.25
    ms_ssim: float = 0.0
    colour: float = 0.0
    psnr: float = 0.0
    # The paper's terms; its weights are 2, 1 and 1, with all of the above at 0.
    psnr_y: float = 0.0
    cosine: float = 0.0
    outlier: float = 0.0

    def __post_init__(self) -> None:
        weights = dataclasses.asdict(self)
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"loss weights must not be negative, and at least one must be positive, not {weights}")


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(output, target)


def tone_error(output: Tensor, target: Tensor, exact: Tensor) -> Tensor:
    """Mean over photos of the logarithm of the mean squared error, in decades, saturating at 30 dB PSNR.

    Many tones of a photo are plausible; this loss picks the likeliest, while a mean error would average them.
    Where `exact` (N,) is set, the error saturates at 43 dB and weighs less: on pages and night skies a change of one or
    two levels shows, but is tiny beside a degraded photo's error.
    """
    squared = (output - target).square().mean((1, 2, 3))
    errors = torch.log10(squared / _TONE_SQUARED_ERROR + 1)
    return torch.where(exact, _EXACT_WEIGHT * torch.log10(squared / _EXACT_SQUARED_ERROR + 1), errors).mean()


def unevenness(grids: Tensor) -> Tensor:
    """Mean squared differences of gains (N, depth, rows, columns) in EV between neighbouring cells of the picture."""
    across, down = grids[..., 1:] - grids[..., :-1], grids[..., 1:, :] - grids[..., :-1, :]
    return across.square().mean() + down.square().mean()


def gradient(output: Tensor, target: Tensor) -> Tensor:
    """L1 between differences of neighbouring pixels."""
    error = output - target
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()


def dissimilarity(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004) with a uniform 7x7 window, constants for a range of 1."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 7, stride=1)

    a, b = mean(output), mean(target)
    variances = mean(output * output) - a * a + mean(target * target) - b * b
    covariance = mean(output * target) - a * b
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))
    return 1 - ssim.mean()


def matched_tone(target: Tensor, base: Tensor) -> Tensor:
    """`target` with one cubic curve per photo and channel, fitted by least squares to `base`; no gradient.

    In double precision: in single, the fit varies by a thousandth with the batch size.
    """
    device = torch.device("cpu") if target.device.type == "mps" else target.device  # which has no double precision
    x = target.detach().flatten(2).to(device, torch.float64)
    wanted = base.detach().flatten(2).to(x).unsqueeze(-1)
    powers = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=-1)  # (N, 3, pixels, 4)
    weighted = powers.transpose(-1, -2) / x.shape[-1]
    # A photo of one colour leaves the curve undetermined; the small diagonal regularizes it.
    normal = weighted @ powers + 1e-5 * torch.eye(4, dtype=x.dtype, device=device)
    curve = torch.linalg.solve(normal, weighted @ wanted)
    return (powers @ curve).squeeze(-1).view_as(target).to(target)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Hundredths of a dB by which PSNR is below 53 dB, where it saturates; mean over the photos.

    A photo with little noise counts as much as one with a lot, which would dominate a mean error.
    """
    squared = (output - target).square().mean((1, 2, 3))
    return (10 * torch.log10(squared / _DETAIL_SQUARED_ERROR + 1) / 100).mean()


def psnr_y(output: Tensor, target: Tensor) -> Tensor:
    """PSNR of luma (BT.601), as hundredths of a dB below 80 dB, where it saturates (paper, training loss)."""
    weights = torch.tensor([0.257, 0.504, 0.098], dtype=output.dtype, device=output.device).view(1, 3, 1, 1)
    squared = ((output - target) * weights).sum(1).square().mean((1, 2))
    return (10 * torch.log10(squared / _LEAST_SQUARED_ERROR + 1) / 100).mean()


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of the angle between whole photos as vectors (paper, training loss)."""
    return (1 - F.cosine_similarity(output.flatten(1), target.flatten(1), dim=1)).mean()


def outlier(output: Tensor, target: Tensor) -> Tensor:
    """L1 that weighs errors by their distance from the channel's mean error (paper, training loss).

    The weight of an error e is tanh(|e - mean| / (deviation / sqrt 2)), without gradient.
    """
    error = output - target
    mean = error.mean((2, 3), keepdim=True)
    spread = error.std((2, 3), keepdim=True) / 2**0.5
    weight = torch.tanh((error - mean).abs() / (spread + 1e-6)).detach()
    return (error.abs() * weight).mean()


def colour(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference after a Gaussian blur of 3 pixels: colour (Ignatov et al. 2017, section 3.1.1)."""
    return F.mse_loss(_blurred(output, 3.0, 10), _blurred(target, 3.0, 10))


def ms_dissimilarity(output: Tensor, target: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang, Simoncelli and Bovik 2003): Gaussian window of 11 pixels, 1.5 px, range 1.

    Small crops use as many of the five scales as keep a side of 11 pixels, their exponents scaled to sum to 1.
    """
    scales = [e for i, e in enumerate(_MS_SSIM_EXPONENTS) if min(output.shape[-2:]) >> i >= 11]
    if not scales:
        raise ValueError(f"MS-SSIM needs sides of 11 pixels or more, not {tuple(output.shape[-2:])}")
    product = torch.ones(output.shape[:2], dtype=output.dtype, device=output.device)
    for index, exponent in enumerate(scales):
        luminance, structure = _ssim_parts(output, target)
        last = index + 1 == len(scales)
        value = (luminance * structure if last else structure).mean((2, 3)).clamp(min=1e-6)
        product = product * value ** (exponent / sum(scales))
        output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return 1 - product.mean()


def _ssim_parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps of SSIM, Gaussian window, where the window fits."""
    mean_a, mean_b = _blurred(a, 1.5, 5), _blurred(b, 1.5, 5)
    c1, c2 = 0.01**2, 0.03**2
    variances = _blurred(a * a, 1.5, 5) - mean_a**2 + _blurred(b * b, 1.5, 5) - mean_b**2
    covariance = _blurred(a * b, 1.5, 5) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _blurred(x: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian blur of `sigma` pixels, cut off at `radius`, where the window fits."""
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, taps, groups=x.shape[1])
    return F.conv2d(x, taps.transpose(2, 3), groups=x.shape[1])


_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "ssim": dissimilarity,
    "gradient": gradient,
    "ms_ssim": ms_dissimilarity,
    "colour": colour,
    "psnr": psnr,
    "psnr_y": psnr_y,
    "cosine": cosine,
    "outlier": outlier,
}


def terms(weights: LossWeights, output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Every term with a weight, unweighted."""
    return {name: term(output, target) for name, term in _TERMS.items() if getattr(weights, name)}


def total(weights: LossWeights, values: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return sum(getattr(weights, name) * value for name, value in values.items())
