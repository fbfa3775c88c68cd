"""Gain maps: how much brighter each pixel is on an HDR screen (ISO 21496-1).

The base, which is stored, is the SDR rendition as a rule, or the HDR picture; the map gives the other one. The network
sees the SDR rendition, and both are multiplied by the same ratio of linear light, after / before. Boosts are ratios, so
a map without offsets does not change. Offsets make a boost depend on its pixel's brightness where that is low: they are
scaled as the shadows are (`GainMap.following`), and the boosts stay.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from qatie_cli.photo.content import JpegTraits
    from qatie_cli.photo.spaces import Space

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
    g = minimum + v ** (1 / gamma) * (maximum - minimum): HDR = (SDR + sdr_offset) * 2 ** g - hdr_offset in linear
    light, where 1 is SDR white; whichever of both is stored. Headrooms are the log2 of what a screen can show above SDR
    white: up to `sdr_headroom` it shows the SDR rendition, from `hdr_headroom` on the HDR picture.
    """

    minimum: tuple[float, ...] = (0.0,)
    maximum: tuple[float, ...] = (1.0,)
    gamma: tuple[float, ...] = (1.0,)
    sdr_offset: tuple[float, ...] = (1 / 64,)
    hdr_offset: tuple[float, ...] = (1 / 64,)
    sdr_headroom: float = 0.0
    hdr_headroom: float = 1.0
    in_base_colours: bool = True  # or in those of the other rendition
    base_is_hdr: bool = False

    def __post_init__(self) -> None:
        numbers = (*self.minimum, *self.maximum, *self.gamma, *self.sdr_offset, *self.hdr_offset)
        numbers = (*numbers, self.sdr_headroom, self.hdr_headroom)
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

    @property
    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the SDR rendition and of the HDR picture, (1 or 3,) float32."""
        return np.array(self.sdr_offset, np.float32), np.array(self.hdr_offset, np.float32)

    def with_the_other_base(self) -> Boost:
        """The boost with the numbers of both renditions exchanged: ISO 21496-1 names the base's before the other's."""
        return dataclasses.replace(
            self,
            sdr_offset=self.hdr_offset,
            hdr_offset=self.sdr_offset,
            sdr_headroom=self.hdr_headroom,
            hdr_headroom=self.sdr_headroom,
            base_is_hdr=not self.base_is_hdr,
        )

    def with_scaled_offsets(self, factor: float) -> Boost:
        """The boost with both offsets times `factor`, within what can be written."""
        base, hdr = (
            tuple(min(max(factor * k, -_LARGEST_NUMBER), _LARGEST_NUMBER) for k in offset)
            for offset in (self.sdr_offset, self.hdr_offset)
        )
        return dataclasses.replace(self, sdr_offset=base, hdr_offset=hdr)


def _repeated(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values * count if len(values) == 1 else values


@dataclass(frozen=True)
class GainMap:
    """The boosts of a photo, upright like the photo.

    `values` is (h, w, 1 or 3) uint8, in general smaller than the photo. `encoded` is the JPEG file they came in, while
    it holds just these values; `jpeg` says how it was compressed. `icc` is the profile of the HDR picture, which
    matters where boosts are applied in its colours. `sdr_space` is the space of the SDR rendition of an HDR base.
    """

    values: np.ndarray
    boost: Boost
    jpeg: JpegTraits | None = None
    encoded: bytes | None = None
    icc: bytes | None = None
    sdr_space: Space | None = None

    def hdr(self, base: np.ndarray, boosts: np.ndarray | None = None) -> np.ndarray:
        """The HDR picture (..., 3) in linear light, 1 is SDR white, of a base (..., 3) in linear light.

        Args:
            boosts: (..., 1 or 3) in stops; None takes the map's, where it is as large as the base.
        """
        stops = self.boost.stops(self.values) if boosts is None else boosts
        low, high = self.boost.offsets
        return (base + low) * np.exp2(stops) - high

    def sdr(self, hdr: np.ndarray, boosts: np.ndarray) -> np.ndarray:
        """The SDR rendition of an HDR picture; else as `hdr`, and not clipped."""
        low, high = self.boost.offsets
        return (hdr + high) * np.exp2(-boosts) - low

    def boosts(self, top: int, bottom: int, height: int, width: int) -> np.ndarray:
        """The boosts of some rows of its photo: (bottom - top, width, 1 or 3) in stops, interpolated linearly.

        Args:
            height, width: of the photo.
        """
        from qatie_cli.photo import resize  # which imports the photo that has gain maps

        scale = len(self.values) / height
        margin = 2 * max(1, math.ceil(scale))
        first = max(0, math.floor(top * scale) - margin)
        stops = self.boost.stops(self.values[first : math.ceil(bottom * scale) + margin])
        box = (0, top * scale - first, stops.shape[1], min(bottom * scale - first, len(stops)))
        channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(stops, 2, 0))
        size = width, bottom - top
        return np.dstack([np.asarray(resize.to_size(c, size, resize.LINEAR, box=box)) for c in channels])

    def following(self, before: np.ndarray, after: np.ndarray) -> GainMap:
        """The map of a photo whose SDR rendition changed from `before` to `after`: both offsets as shadows changed.

        Where the SDR rendition became r times as bright, so does the HDR picture: (r SDR + r k) * 2 ** g - r k.

        Args:
            before, after: (H, W, 1 or 3) uint8 or uint16, sRGB-encoded in whatever primaries, equally large.
        """
        offset = max(map(abs, (*self.boost.sdr_offset, *self.boost.hdr_offset)))
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
