"""Drawn surfaces: plaster, paper and leather, lit from one side, for a network that shall not take them for noise.

They are as faint, as fine and as gray as noise. What tells them from it is their look: bumps that lie one way, bright
towards the light and dark behind. Photos to learn from are sharp, contrasty and hold few of them.
"""

from __future__ import annotations

import math

import numpy as np

_FINEST_PX, _COARSEST_PX = 0.5, 1.3  # standard deviation of a bump's height
_LONGEST = 3.0  # times as long as wide
_LEAST_COVERED, _MOST_COVERED = -1.0, 1.5  # heights that lie below this, in standard deviations, are a plane
_ROUNDEST, _STEEPEST = 0.7, 1.5  # exponent of what rises above it


def draw_surface(rng: np.random.Generator, side: int) -> np.ndarray:
    """Light and shade (side, side) float32 on a rough surface: mean 0, standard deviation 1, same at opposite edges."""
    width, stretch = rng.uniform(_FINEST_PX, _COARSEST_PX), rng.uniform(1, _LONGEST)
    lie, light = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    plane, power = rng.uniform(_LEAST_COVERED, _MOST_COVERED), rng.uniform(_ROUNDEST, _STEEPEST)
    rows, columns = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    along = columns * math.cos(lie) + rows * math.sin(lie)
    across = rows * math.cos(lie) - columns * math.sin(lie)
    # A Gaussian filter as it stands in the Fourier domain; then the slope towards the light.
    bumps = np.exp(-2 * (math.pi * width) ** 2 * ((stretch * along) ** 2 + across**2))
    slope = 2j * math.pi * (columns * math.cos(light) + rows * math.sin(light))
    height = _filtered(rng.standard_normal((side, side)), bumps)
    risen = np.maximum(height / height.std() - plane, 0) ** power
    shade = _filtered(risen, slope)
    return (shade / shade.std()).astype(np.float32)  # a slope has no mean


def _filtered(plane: np.ndarray, response: np.ndarray) -> np.ndarray:
    return np.fft.irfft2(np.fft.rfft2(plane) * response, plane.shape)
