"""Calibration: int8 ranges from a network's activations on photos."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from qatie_cli.model.network import Network, Rounding
from qatie_cli.model.quantization.scheme import ACTIVATION_MAX, TANH_REACH, Activation, calibrated_points

# Outliers beyond this multiple of the RMS are clipped. Highlights reach 30 times the RMS at some points of a trained
# network; such ranges leave four levels to everything else. Post-training int8 of qatie-c16 reaches 29.6 dB to float
# with full ranges, 38.0 with 4, 37.6 with 3, 37.0 with 6.
CLIP_RMS = 4.0

Observer = TypeVar("Observer", bound=Rounding)


class Extremes:
    """First calibration pass: minimum, maximum and RMS of each channel at each point."""

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
        """Root mean square of each channel (C)."""
        return torch.stack(self._squares[name]).mean(0).sqrt()

    def magnitude(self, name: str, clip_rms: float | None) -> Tensor:
        """Largest absolute value of each channel (C), clipped to `clip_rms` times the channel's RMS unless None."""
        largest = torch.maximum(self.high[name].abs(), self.low[name].abs())
        return largest if clip_rms is None else torch.minimum(largest, clip_rms * self.rms(name))


class Histograms:
    """Second calibration pass: a histogram of the values at each point."""

    BINS = 2048

    def __init__(self, extremes: Extremes) -> None:
        self.low = {name: min(float(v.min()), 0.0) for name, v in extremes.low.items()}
        self.high = {name: max(float(v.max()), 1e-6) for name, v in extremes.high.items()}
        self.counts = {name: torch.zeros(self.BINS) for name in self.low}

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        self.counts[name] += torch.histc(x, self.BINS, self.low[name], self.high[name]).cpu() / x.numel()
        return x

    def range_of(self, name: str, power: float = 2.0) -> Activation:
        """The range that minimizes the mean of rounding and clipping errors to the power of `power`."""
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
    network: Network, photos: Iterable[Tensor], power: float = 2.0, clip_rms: float | None = CLIP_RMS
) -> dict[str, Activation]:
    """Ranges of every point from photos (1, 3, H, W) in 0..1, as the network sees them; sides multiples of 8.

    `photos` are walked twice: once for extremes, once for histograms. Ranges minimize the mean of rounding and clipping
    errors to the power of `power`: 2 is least squares, higher powers clip rare values less. No range reaches beyond
    `clip_rms` times the RMS of its point (None: no limit), nor, in front of a tanh, beyond where that saturates.
    """
    photos = list(photos)
    extremes = observe(network, photos, Extremes())
    histograms = observe(network, photos, Histograms(extremes))
    ranges = {}
    for name in calibrated_points(network.config):
        reach = math.inf if clip_rms is None else clip_rms * float(extremes.rms(name).square().mean().sqrt())
        if name.endswith(".pre"):
            reach = min(reach, TANH_REACH)
        ranges[name] = histograms.range_of(name, power).within(reach)
    return ranges


def observe(network: Network, photos: list[Tensor], observer: Observer) -> Observer:
    """The observer, after the network has run on all photos with it."""
    for photo in photos:
        network.features(photo, observer)
    return observer
