"""The rendering of detail that the network learns: structure in the mid-tones stands out a little more.

The tone stage renders what a glance at the whole photo shows (`rendering`); its gains know nothing finer than a cell.
Photos are (N, 3, H, W), sRGB-encoded, 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli.data import degradation
from qatie_cli.model.tone_features import luma
from qatie_cli.model.windows import base_layer, box_mean


@dataclass(frozen=True)
class DetailConfig:
    """How strongly the targets of the network are rendered; a `clarity` of 0 leaves them as they are."""

    clarity: float = 0.0  # share of the detail between `finest` and `radius` that is added to it
    radius: int = 6  # pixels; of the base layer that detail stands out from
    finest: float = 0.8  # pixels; standard deviation of the Gaussian below which detail is as it was
    faint: float = 0.02  # deviation of luma at which half of the clarity is added: next to none where there is noise
    busy: float = 0.1  # deviation from which on it is half again: what is rich in contrast would look harsh
    most: float = 0.08  # change of luma that is never exceeded
    lit: float = 0.35  # luma from which on it is added in full; in the dark, noise would stand out first

    def __post_init__(self) -> None:
        if min(self.clarity, self.faint) < 0:
            raise ValueError("the detail's clarity and faint must be at least 0")
        if min(self.radius, self.finest, self.busy, self.most, self.lit) <= 0:
            raise ValueError("the detail's radius, finest, busy, most and lit must be above 0")


UNCHANGED = DetailConfig()


def render(photo: Tensor, config: DetailConfig) -> Tensor:
    """The photos with their detail rendered; edges as strong as an object's get no halo, black and white stay."""
    if not config.clarity:
        return photo
    y = luma(photo)
    radius = int(config.radius)
    detail = _smoothed(y, config.finest) - base_layer(y, radius)
    power = box_mean(detail * detail, radius)
    share = power / (power + config.faint**2) * config.busy**2 / (power + config.busy**2)
    change = config.clarity * share * detail
    change = config.most * torch.tanh(change / config.most)
    room = (y / config.lit).clamp(0, 1) * ((1 - y) / 0.08).clamp(0, 1)
    return (photo + change * room).clamp(0, 1)


def _smoothed(y: Tensor, sigma: float) -> Tensor:
    """`y` (N, 1, H, W) blurred by a Gaussian of `sigma` pixels, edges repeated."""
    taps = torch.from_numpy(degradation.gaussian_taps(sigma)).to(y)
    radius = len(taps) // 2
    y = F.conv2d(F.pad(y, (radius, radius, 0, 0), mode="replicate"), taps.view(1, 1, 1, -1))
    return F.conv2d(F.pad(y, (0, 0, radius, radius), mode="replicate"), taps.view(1, 1, -1, 1))
