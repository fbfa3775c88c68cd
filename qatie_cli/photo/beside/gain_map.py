"""Gain maps: how much brighter each pixel is on an HDR screen (ISO 21496-1).

The network sees the SDR rendition, and both renditions are multiplied by the same ratio of linear light, after /
before. An HDR screen then shows the same change, and the camera's boost stays. Boosts are ratios, so a map without
offsets does not change. Offsets make a boost depend on its pixel's brightness: they are scaled like shadows, and the
remaining error is corrected in the boosts (`GainMap.following`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qatie_cli.photo.content import JpegTraits

_LEAST_LIGHT = 1 / 4096  # of linear light; what was darker has no ratio, and keeps its boost
_SAMPLES = 2  # of the photo for each value of the map, in both directions
_UNCHANGED = 0.25  # of a step of the map: less is no change
_MOST_VALUES = 4  # of a map for each pixel of its photo
_STRIP_ROWS = 64  # of a map, worked on at a time
_RANGE_SAMPLES = 1_000_000  # of a map's values, to find their range
_CELLS = 64  # of a map in both directions, by which offsets are chosen
_FACTORS, _LEAST_FACTOR = 17, 0.1  # of offsets that are tried
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
        """The boost with both offsets times `factor`."""
        base, hdr = (tuple(factor * k for k in offset) for offset in (self.base_offset, self.hdr_offset))
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
        """The map of a photo whose pixels changed from `before` to `after`.

        Args:
            before, after: (H, W, 1 or 3) uint8 or uint16, sRGB-encoded in whatever primaries, equally large.
        """
        boost = self.boost
        if not (any(boost.base_offset) or any(boost.hdr_offset)) or not boost.is_of_an_sdr_base():
            return self
        scaled = self._with_offsets_of(before, after)
        wanted = np.empty((*self.values.shape[:2], max(self.values.shape[2], len(boost.pairs[0]))), np.float16)
        moved = 0.0
        samples = list(_samples(*self.values.shape[:2], *before.shape[:2]))
        for top in range(0, len(wanted), _STRIP_ROWS):  # a whole map as floats may take far more than the photo
            strip = slice(top, top + _STRIP_ROWS)
            stops = boost.stops(self.values[strip])
            mean = np.zeros_like(stops)
            for rows, columns in samples:
                old, new = (_linear_table(p.dtype.itemsize)[p[rows[strip], columns]] for p in (before, after))
                boosts = _followed(boost, scaled, stops, old, new)
                mean += boosts if boosts.shape == stops.shape else boosts.mean(axis=2, keepdims=True)
            mean /= len(samples)
            wanted[strip] = np.clip(mean, -_LARGEST_BOOST, _LARGEST_BOOST)
            moved = max(moved, float(np.abs(mean - stops).max(initial=0)))
        if moved * 255 < _UNCHANGED * max(high - low for low, high in zip(*boost.pairs, strict=True)):
            return dataclasses.replace(self, boost=scaled)
        widened = _widened(scaled, wanted)
        values = np.empty(wanted.shape, np.uint8)
        for top in range(0, len(wanted), _STRIP_ROWS):
            strip = slice(top, top + _STRIP_ROWS)
            values[strip] = widened.values(wanted[strip])
        return dataclasses.replace(self, boost=widened, values=values, encoded=None)

    def _with_offsets_of(self, before: np.ndarray, after: np.ndarray) -> Boost:
        """The boost with its offsets scaled so that the boosts which follow agree best within each value of the map."""
        height, width = self.values.shape[:2]
        rows, columns = (np.linspace(0, size - 1, min(size, _CELLS)).astype(np.intp) for size in (height, width))
        stops = self.boost.stops(self.values[rows[:, None], columns])
        samples = list(_samples(height, width, *before.shape[:2]))
        old, new = (
            np.stack([_linear_table(p.dtype.itemsize)[p[down[rows], across[columns]]] for down, across in samples])
            for p in (before, after)
        )
        least, most = np.maximum(np.percentile(_ratio(old, new), [1, 99]), _LEAST_FACTOR)
        factors = np.geomspace(least, most, _FACTORS)
        tried = [self.boost, *(self.boost.with_scaled_offsets(float(factor)) for factor in factors)]
        within = (0, 3) if stops.shape[2] == 1 else (0,)
        spreads = [float(_followed(self.boost, boost, stops, old, new).var(axis=within).mean()) for boost in tried]
        return tried[int(np.argmin(spreads))]


def _widened(boost: Boost, stops: np.ndarray) -> Boost:
    """The boost with a range that holds nearly all `stops` (h, w, channels); unchanged where its own does."""
    count = len(boost.pairs[0])
    few = stops.reshape(-1, stops.shape[2])[:: max(1, stops.size // _RANGE_SAMPLES)]
    least, most = (np.percentile(few, share, axis=0) for share in (0.1, 99.9))
    if count == 1:
        least, most = least.min(keepdims=True), most.max(keepdims=True)
    low, high = boost.pairs
    return dataclasses.replace(
        boost,
        minimum=tuple(float(min(a, b)) for a, b in zip(low, least, strict=True)),
        maximum=tuple(float(max(a, b)) for a, b in zip(high, most, strict=True)),
    )


def _followed(boost: Boost, scaled: Boost, stops: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The boosts, in stops, that multiply the HDR picture by what multiplies the base, for each channel of the base.

    Args:
        boost, scaled: with the offsets of `stops`, and with those of the result.
        old, new: the base in linear light.
    """
    low, high = (np.array(offset, np.float32) for offset in (boost.base_offset, boost.hdr_offset))
    lit = old >= _LEAST_LIGHT
    shown = np.maximum((np.where(lit, old, new) + low) * np.exp2(stops) - high, 0) * np.where(lit, _ratio(old, new), 1)
    low, high = (np.array(offset, np.float32) for offset in (scaled.base_offset, scaled.hdr_offset))
    return np.log2(np.maximum(shown + high, 1e-6) / np.maximum(new + low, 1e-6))


def _ratio(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return new / np.maximum(old, _LEAST_LIGHT)


def _samples(rows: int, columns: int, height: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of a few pixels of a photo in each cell of a map.

    One boost has to do for them all: the mean in stops is the best in the logarithm of light.
    """
    for down in range(_SAMPLES):
        for across in range(_SAMPLES):
            yield _positions(height, rows, down)[:, None], _positions(width, columns, across)


def _positions(size: int, cells: int, sample: int) -> np.ndarray:
    places = (np.arange(cells) + (sample + 0.5) / _SAMPLES) * (size / cells)
    return np.minimum(places.astype(np.intp), size - 1)


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
