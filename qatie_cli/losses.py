"""Training losses on photos (N, 3, H, W), nominal range 0..1; every loss is a mean and 0 for equal photos."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Share of each term."""

    l1: float = 1.0
    ssim: float = 0.15
    local_mean: float = 0.3  # L1 on 16x16 means: tone, undisturbed by detail
    gradient: float = 0.0  # L1 on horizontal and vertical differences: detail, undisturbed by tone
    tone: float = 0.3  # L1 of the tone stage's own output, so that it does what it can alone


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(output, target)


def local_mean(output: Tensor, target: Tensor) -> Tensor:
    """L1 between 16x16 means."""
    return F.l1_loss(F.avg_pool2d(output, 16), F.avg_pool2d(target, 16))


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


def terms(output: Tensor, toned: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Every term, unweighted, for an enhanced, a merely toned and a target photo."""
    return {
        "l1": l1(output, target),
        "ssim": dissimilarity(output, target),
        "local_mean": local_mean(output, target),
        "gradient": gradient(output, target),
        "tone": local_mean(toned, target),
    }


def total(weights: LossWeights, values: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return sum(getattr(weights, name) * value for name, value in values.items())
