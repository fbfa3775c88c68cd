"""Calibration: int8 ranges from what a network computes on photos."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from qatie_cli.model.network import Network
from qatie_cli.model.quantization.scheme import ACTIVATION_MAX, TANH_REACH, Activation, calibrated_points

# Values beyond so many times the root mean square are clipped. Highlights drive some points of a trained network to 30
# times theirs; ranges that reach so far leave four levels to everything else. On the float network of qatie-c16
# post-training int8 came to 29.6 dB of float with whole ranges, to 38.0 with 4, 37.6 with 3, 37.0 with 6.
TAIL = 4.0


class Extremes:
    """First calibration pass: the smallest and largest value of each channel at each point, and its power."""

    def __init__(self) -> None:
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}
        self._squares: dict[str, list[Tensor]] = {}

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        if name in self.low:
            low, high = torch.minimum(low, self.low[name]), torch.maximum(high, self.high[name])
        self.low[name], self.high[name] = low, high
        self._squares.setdefault(name, []).append(x.square().mean((0, 2, 3)))
        return x

    def rms(self, name: str) -> Tensor:
        """Root of the mean square of each channel (C)."""
        return torch.stack(self._squares[name]).mean(0).sqrt()

    def magnitude(self, name: str, tail: float | None) -> Tensor:
        """The largest absolute value of each channel (C), at most `tail` times its root mean square; None: whatever."""
        largest = torch.maximum(self.high[name].abs(), self.low[name].abs())
        return largest if tail is None else torch.minimum(largest, tail * self.rms(name))


class Histograms:
    """Second calibration pass: how often each value occurs at each point."""

    BINS = 2048

    def __init__(self, extremes: Extremes) -> None:
        self.low = {name: min(float(v.min()), 0.0) for name, v in extremes.low.items()}
        self.high = {name: max(float(v.max()), 1e-6) for name, v in extremes.high.items()}
        self.counts = {name: torch.zeros(self.BINS) for name in self.low}

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        self.counts[name] += torch.histc(x, self.BINS, self.low[name], self.high[name]) / x.numel()
        return x

    def range_of(self, name: str, power: float = 2.0) -> Activation:
        """The range with the least mean of rounding and clipping errors to the power of `power`."""
        low, high, counts = self.low[name], self.high[name], self.counts[name].numpy()
        centres = low + (high - low) * (np.arange(self.BINS) + 0.5) / self.BINS
        kept = np.linspace(1, 0.2, 81)[:, None]
        clipped_below = (counts * np.maximum(kept * low - centres, 0) ** power).sum(1)
        clipped_above = (counts * np.maximum(centres - kept * high, 0) ** power).sum(1)
        step = (kept.T * high - kept * low) / ACTIVATION_MAX  # rows: kept share of low; columns: of high
        error = clipped_below[:, None] + clipped_above[None, :] + counts.sum() * (step / 2) ** power / (power + 1)
        row, column = np.unravel_index(error.argmin(), error.shape)
        return Activation.covering(float(kept[row, 0] * low), float(kept[column, 0] * high))


@torch.no_grad()
def calibrate(
    network: Network, photos: Iterable[Tensor], power: float = 2.0, tail: float | None = TAIL
) -> dict[str, Activation]:
    """Ranges of every point from photos (1, 3, H, W) in 0..1, as the network sees them; sides multiples of 8.

    `photos` is walked twice: once for extremes, once for histograms. Of errors by rounding and clipping the mean is
    least, to the power of `power`: 2 is least squares, higher powers clip rare values less. No range reaches beyond
    `tail` times the root mean square of its point (None: as far as values do), and none in front of a tanh beyond what
    changes that.
    """
    photos = list(photos)
    extremes = observe(network, photos, Extremes())
    histograms = observe(network, photos, Histograms(extremes))
    ranges = {}
    for name in calibrated_points(network):
        reach = math.inf if tail is None else tail * float(extremes.rms(name).square().mean().sqrt())
        if name.endswith(".pre"):
            reach = min(reach, TANH_REACH)
        ranges[name] = histograms.range_of(name, power).within(reach)
    return ranges


def observe(network: Network, photos: list[Tensor], observer):
    for photo in photos:
        network.features(photo, observer)
    return observer


# --- equalization -------------------------------------------------------------------------------------------------
