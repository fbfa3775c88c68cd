"""The float engine, on CPU, CUDA or MPS."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli.model import network
from qatie_cli.model.moments import Moments

# Measured at the peak of `features`, per pixel of the photo and per unit of width: 13 for large photos, 18 for tiles.
BYTES_PER_PIXEL_AND_WIDTH = 18.0


def feature_rows(features: Tensor, top: int, bottom: int) -> tuple[slice, tuple[int, int]]:
    """Rows of the features that residual rows top..bottom (even) read, and how many beyond each edge are zeros."""
    first, last = top // 2 - 1, bottom // 2 + 1
    above, below = max(0, -first), max(0, last - features.shape[2])
    return slice(first + above, last - below), (above, below)


def tail_rows(features: Tensor, weight: Tensor, bias: Tensor) -> np.ndarray:
    """Residual (2 * (h - 2), W, 3) float32 of h rows of float features (1, c, h, W/2), margin rows included."""
    phases = F.conv2d(features, weight, bias, padding=(0, 1))
    return F.pixel_shuffle(phases, 2)[0].permute(1, 2, 0).cpu().numpy()


class FloatNetwork:
    """The refinement network in float32."""

    def __init__(self, net: network.Network, device: str) -> None:
        self.bytes_per_pixel = BYTES_PER_PIXEL_AND_WIDTH * net.config.width + 12
        self._network = net.to(device)
        self._device = device
        self._weight, self._bias = self._network.tail()

    @torch.inference_mode()
    def features(self, photo_u8_hwc: np.ndarray, moments: Moments | None = None) -> Tensor:
        photo = torch.from_numpy(photo_u8_hwc).to(self._device).permute(2, 0, 1)[None].float().div_(255)
        return self._network.features(photo.contiguous(memory_format=torch.channels_last), moments=moments)

    @torch.inference_mode()
    def residual(self, features: Tensor, top: int, bottom: int) -> np.ndarray:
        rows, margin = feature_rows(features, top, bottom)
        part = F.pad(features[:, :, rows], (0, 0, *margin))
        return tail_rows(part, self._weight, self._bias)
