"""Uneven light in EV: backlight, flash and light from one side.

As with `degradation`, sampling the parameters is separate from applying them. Photos are (N, 3, H, W), sRGB-encoded,
0..1; the field applies in linear light.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli.data.degradation import ParameterRange
from qatie_cli.model.tone_features import luma
from qatie_cli.model.windows import base_layer

_BLOBS = 4  # cells along each side of the random field behind a backlight
_EDGE_RADIUS = 5 / 128  # share of the long side within which a backlight follows the picture's edges


@dataclass(frozen=True)
class LightConfig:
    """Every kind of uneven light with its probability and range, in EV."""

    backlight: ParameterRange = ParameterRange(0.4, 0.3, 1.8)  # a smooth field that mostly darkens dark areas
    backlight_contrast: ParameterRange = ParameterRange(1.0, 1.0, 6.0)  # how closely it keeps to the dark parts
    vignette: ParameterRange = ParameterRange(0.2, 0.1, 0.8)  # at the corners
    flash: ParameterRange = ParameterRange(0.1, 0.3, 1.5)  # what a flash does not reach is darker
    slope: ParameterRange = ParameterRange(0.25, 0.2, 1.2)  # from one side to the other

    @staticmethod
    def from_table(table: dict) -> LightConfig:
        """The config from its TOML table: `name = [probability, low, high]`.

        Raises:
            ValueError: an unknown setting, or a value that is no range.
        """
        known = {f.name for f in dataclasses.fields(LightConfig)}
        if unknown := sorted(set(table) - known):
            raise ValueError(f"unknown light {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return LightConfig(**{name: ParameterRange.from_list(name, value) for name, value in table.items()})

    def to_table(self) -> dict[str, list[float]]:
        """The inverse of `from_table`."""
        return {f.name: getattr(self, f.name).to_list() for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class LightParameters:
    """The uneven light of one photo; the defaults are even light."""

    backlight: float = 0.0
    backlight_contrast: float = 0.0
    vignette: float = 0.0
    flash: float = 0.0
    slope: float = 0.0
    reach: float = 0.5  # of the flash, as a share of the side
    centre: tuple[float, float] = (0.5, 0.5)  # of the flash, x and y as shares of the sides
    direction: float = 0.0  # of the slope, radians
    blobs: tuple[float, ...] = (0.0,) * _BLOBS**2


def sample(config: LightConfig, rng: np.random.Generator) -> LightParameters:
    """One photo's light; always consumes the same randomness."""
    names = ("backlight", "backlight_contrast", "vignette", "flash", "slope")
    strengths = {name: getattr(config, name).sample(rng, 0.0) for name in names}
    return LightParameters(
        **strengths,
        reach=rng.uniform(0.3, 0.7),
        centre=(rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75)),
        direction=rng.uniform(0, 2 * math.pi),
        blobs=tuple(rng.standard_normal(_BLOBS**2)),
    )


def field(light: Sequence[LightParameters], photo: Tensor) -> Tensor:
    """EV (N, 1, H, W) by which the light of each photo changes."""

    def each(name: str) -> Tensor:
        return photo.new_tensor([getattr(one, name) for one in light])[:, None, None, None]

    height, width = photo.shape[-2:]
    x = torch.linspace(0, 1, width, dtype=photo.dtype, device=photo.device).view(1, 1, 1, width)
    y = torch.linspace(0, 1, height, dtype=photo.dtype, device=photo.device).view(1, 1, height, 1)
    blobs = photo.new_tensor([one.blobs for one in light]).view(-1, 1, _BLOBS, _BLOBS)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=False)
    base = base_layer(luma(photo), max(1, round(_EDGE_RADIUS * max(height, width))))
    darkness = each("backlight_contrast") * (base.mean((2, 3), keepdim=True) - base) * 2
    ev = -each("backlight") * torch.sigmoid(1.5 * blobs + darkness)
    ev = ev - each("vignette") * 2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    centres = photo.new_tensor([one.centre for one in light])
    squared = (x - centres[:, 0].view(-1, 1, 1, 1)) ** 2 + (y - centres[:, 1].view(-1, 1, 1, 1)) ** 2
    ev = ev - each("flash") * (1 - torch.exp(-0.5 * squared / each("reach") ** 2))
    direction = each("direction")
    return ev + each("slope") * ((x - 0.5) * torch.cos(direction) + (y - 0.5) * torch.sin(direction))
