"""Training losses on photos (N, 3, H, W), nominal range 0..1; every loss is a mean and 0 for equal photos."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Share of each term of the network's loss.

    Where a tone stage has decided the tone before, the terms compare with the target brought to the tone of the
    network's input (`matched_tone`): the network then learns noise and detail, undisturbed by tone errors that differ
    from photo to photo and that it cannot know. (With the plain target it had learnt nothing after 1,200 steps.)
    """

    l1: float = 1.0
    ssim: float = 0.15
    gradient: float = 0.25


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


def matched_tone(target: Tensor, base: Tensor) -> Tensor:
    """`target` with one cubic curve per photo and channel, fitted by least squares to `base`; no gradient."""
    x = target.detach().flatten(2)
    powers = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=-1)  # (N, 3, pixels, 4)
    weighted = powers.transpose(-1, -2) / x.shape[-1]
    # A photo of one colour leaves the curve undetermined: the small diagonal then decides.
    normal = weighted @ powers + 1e-5 * torch.eye(4, dtype=x.dtype, device=x.device)
    curve = torch.linalg.solve(normal, weighted @ base.detach().flatten(2).unsqueeze(-1))
    return (powers @ curve).squeeze(-1).view_as(target)


def terms(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Every term, unweighted."""
    return {
        "l1": l1(output, target),
        "ssim": dissimilarity(output, target),
        "gradient": gradient(output, target),
    }


def total(weights: LossWeights, values: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return sum(getattr(weights, name) * value for name, value in values.items())
