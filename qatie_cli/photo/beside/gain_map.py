"""Gain maps: how much brighter each pixel is on an HDR screen (ISO 21496-1).

The network sees the base, and both renditions are multiplied by the same ratio of linear light, after / before. Boosts
are ratios, so a map without offsets does not change. Offsets make a boost depend on its pixel's brightness in shadows:
they are scaled by as much as the shadows brighten (`GainMap.following`), and the boosts stay.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qatie_cli.photo.content import JpegTraits

_SHADOWS = 4.0  # times the offsets: light above hardly depends on them
_SIDE_SAMPLES = 1000  # of a photo in both directions, to measure its shadows
_LEAST_FACTOR, _LARGEST_FACTOR = 0.1, 10.0  # of offsets
_MOST_VALUES = 4  # of a map for each pixel of its photo
_LARGEST_NUMBER = 1000.0  # of a description; descriptions of damaged files reach beyond what ISO 21496-1 can hold
_LARGEST_BOOST = 16.0  # stops; more means damage


@dataclass(frozen=True)
class Boost:
    """How the values of a gain map become boosts (ISO 21496-1, 5.2.5).

    Values have an entry for all channels or three. A value v in 0..1 boosts by 2 ** g with
    g = minimum + v ** (1 / gamma) * (maximum - minimum): HDR = (base + base_offset) * 2 ** g - hdr_offset in linear
    light, where 1 is SDR white. Headrooms are the log2 of what a screen can show above SDR white: up to
    `base_headroom` it shows the base, from `hdr_headroom` on the HDR picture.
    """

    minimum: tuple[float, ...] = (0.0,)
    maximum: tuple[float, ...] = (1.0,)
    gamma: tuple[float, ...] = (1.0,)
    base_offset: tuple[float, ...] = (1 / 64,)
    hdr_offset: tuple[float, ...] = (1 / 64,)
    base_headroom: float = 0.0
    hdr_headroom: float = 1.0
    in_base_colours: bool = True  # or in those of the HDR picture

    def __post_init__(self) -> None:
        numbers = (*self.minimum, *self.maximum, *self.gamma, *self.base_offset, *self.hdr_offset)
        numbers = (*numbers, self.base_headroom, self.hdr_headroom)
        if not np.isfinite(numbers).all() or max(map(abs, numbers)) > _LARGEST_NUMBER:
            raise ValueError("a boost's parameter is not a number, or out of range")
        if min(self.gamma) <= 0 or any(low > high for low, high in zip(*self.pairs, strict=True)):
            raise ValueError("the maximum boost is below the minimum")
        if max(map(abs, (*self.minimum, *self.maximum))) > _LARGEST_BOOST:
            raise ValueError("a boost exceeds any screen's")

    @property
    def pairs(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Minima and maxima, equally many of both."""
        count = max(len(self.minimum), len(self.maximum))
        return _repeated(self.minimum, count), _repeated(self.maximum, count)

    def is_of_an_sdr_base(self) -> bool:
        """Whether the base is what SDR screens show, not the HDR picture."""
        return self.base_headroom < self.hdr_headroom

    def stops(self, values: np.ndarray) -> np.ndarray:
        """The boosts (..., channels) in stops, float32, of values (..., channels) uint8."""
        shares = (values.astype(np.float32) / 255) ** (1 / np.array(self.gamma, np.float32))
        low = np.array(self.minimum, np.float32)
        return low + shares * (np.array(self.maximum, np.float32) - low)

    def values(self, stops: np.ndarray) -> np.ndarray:
        """The values (..., channels) uint8 of boosts in stops; out of range they are clipped."""
        low = np.array(self.minimum, np.float32)
        spread = np.maximum(np.array(self.maximum, np.float32) - low, 1e-6)
        shares = np.clip((stops - low) / spread, 0, 1) ** np.array(self.gamma, np.float32)
        return np.rint(shares * 255).astype(np.uint8)

    def with_scaled_offsets(self, factor: float) -> Boost:
        """The boost with both offsets times `factor`, within what can be written."""
        base, hdr = (
            tuple(min(max(factor * k, -_LARGEST_NUMBER), _LARGEST_NUMBER) for k in offset)
            for offset in (self.base_offset, self.hdr_offset)
        )
        return dataclasses.replace(self, base_offset=base, hdr_offset=hdr)


def _repeated(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values * count if len(values) == 1 else values


@dataclass(frozen=True)
class GainMap:
    """The boosts of a photo, upright like the photo.

    `values` is (h, w, 1 or 3) uint8, in general smaller than the photo. `encoded` is the JPEG file they came in, while
    it holds just these values; `jpeg` says how it was compressed. `icc` is the profile of the HDR picture, which
    matters where boosts are applied in its colours.
    """

    values: np.ndarray
    boost: Boost
    jpeg: JpegTraits | None = None
    encoded: bytes | None = None
    icc: bytes | None = None

    def hdr(self, base: np.ndarray, boosts: np.ndarray | None = None) -> np.ndarray:
        """The HDR picture (..., 3) in linear light, 1 is SDR white, of a base (..., 3) in linear light.

        Args:
            boosts: (..., 1 or 3) in stops; None takes the map's, where it is as large as the base.
        """
        stops = self.boost.stops(self.values) if boosts is None else boosts
        low, high = (np.array(offset, np.float32) for offset in (self.boost.base_offset, self.boost.hdr_offset))
        return (base + low) * np.exp2(stops) - high

    def following(self, before: np.ndarray, after: np.ndarray) -> GainMap:
        """The map for a photo whose pixels changed from `before` to `after`: both offsets times the shadows' ratio.

        Where the base is r times as bright, so is the HDR picture then: (r base + r k) * 2 ** g - r k.

        Args:
            before, after: (H, W, 1 or 3) uint8 or uint16, sRGB-encoded in whatever primaries, equally large.
        """
        offset = max(map(abs, (*self.boost.base_offset, *self.boost.hdr_offset)))
        if offset == 0:
            return self
        rows, columns = (slice(None, None, -(-size // _SIDE_SAMPLES)) for size in before.shape[:2])
        old, new = (_linear_table(p.dtype.itemsize)[p[rows, columns]] for p in (before, after))
        shadows = old < _SHADOWS * offset
        light = float(old[shadows].sum(dtype=np.float64))
        if light <= 0:
            return self
        factor = float(new[shadows].sum(dtype=np.float64)) / light
        factor = min(max(factor, _LEAST_FACTOR), _LARGEST_FACTOR)
        return dataclasses.replace(self, boost=self.boost.with_scaled_offsets(factor))


@functools.cache
def _linear_table(sample_bytes: int) -> np.ndarray:
    """Linear light of every uint8 or uint16 value (IEC 61966-2-1)."""
    return linear(np.linspace(0, 1, 1 << 8 * sample_bytes)).astype(np.float32)


def check_size(size: tuple[int, int], photo_pixels: int) -> None:
    """Raise ValueError if a gain map is implausibly large for its photo."""
    if not 0 < size[0] * size[1] <= _MOST_VALUES * photo_pixels:
        raise ValueError("the gain map is far larger than the photo")


def linear(encoded: np.ndarray) -> np.ndarray:
    """Linear light of sRGB-encoded values in 0..1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)
