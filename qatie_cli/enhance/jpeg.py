"""Photos as they were before JPEG, as far as its quantization tables tell (ITU-T T.81).

A JPEG's tables say how far each of its DCT coefficients may lie from the truth. Coefficients of blocks on other grids
than the file's hold less of its errors: small ones are taken for errors, twice, the second time by their share in the
first estimate (Nosratinia 2001; Foi et al. 2007), and what comes out is brought back into the steps that the file
states. Chroma of half size follows luma's edges.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from qatie_cli.enhance.blocks import SIDE, into_frequencies, out_of_frequencies, projected, shrunken
from qatie_cli.enhance.tiling import strips
from qatie_cli.kernels.threads import in_turn
from qatie_cli.photo import components, fineness
from qatie_cli.photo.content import JpegTraits, Photo
from qatie_cli.photo.pixels import upright

_F = np.float32
# Of luma and chroma, in steps of the table: what is taken for an error; and where half of a coefficient is.
_THRESHOLDS, _HALVES = (0.6, 0.4), (0.2, 0.15)
_REACH = 0.3  # steps that a coefficient may lie from the file's; its true value may lie half a step away
_CERTAIN = (1.0, 2.5)  # levels: a block whose coefficients do not give its pixels back was clipped
_FINE = 92  # libjpeg's quality: above it the share of the change that is applied falls
_CHROMA_FOLLOWS, _STEEPEST, _FLAT = 0.8, 0.5, 16.0  # share, limit of slopes, variance of luma that counts as none
_AT_ONCE = 2  # strips of the usual size, since half of one would be halo
WORKING_BYTES = 80_000_000  # of strips, on two threads
_HALO = 48  # rows, multiples of two blocks: two passes, the filter of chroma and its slopes reach 42
_GRID = 2 * SIDE  # rows of strips begin at multiples of it
_UNDONE = 4  # taps to each side of the inverse of libjpeg's chroma interpolation: what is left out is 1e-4
_BY_SAMPLING = {0: (1, 1), 1: (1, 2), 2: (2, 2)}  # rows and columns of pixels for a chroma value
_BACK = {6: 8, 8: 6}  # orientations that turn back; the others are their own inverse


def share_of(traits: JpegTraits) -> float:
    """How much of the change is applied, 0..1: all of it up to quality 92, none from 95 on."""
    return float(np.clip((components.FINEST - fineness.of_tables(traits)) / (components.FINEST - _FINE), 0, 1))


def restored(photo: Photo, strength: float = 1.0) -> Photo:
    """The photo with less of JPEG's blocks, ringing and smeared colours.

    The same photo where there is nothing to restore: no JPEG, a fine one, or pixels that are not its own any more.

    Args:
        strength: 0..1 of the change.
    """
    traits, stored = photo.jpeg, photo.components
    if traits is None or stored is None or not traits.quantization:
        return photo
    share, orientation = strength * share_of(traits), photo.turn.orientation if photo.turn else 1
    if share == 0 or not _are_of(stored, photo.pixels, orientation):
        return photo
    tables = [np.maximum(np.array(table, _F), 1).reshape(SIDE, SIDE) for table in traits.quantization]  # 0 is damage
    steps = tuple(tables[min(component, len(tables) - 1)] for component in range(3))
    picture = _Picture(stored, steps, _BY_SAMPLING[traits.subsampling or 0])
    out = np.empty_like(stored)
    in_turn(
        lambda top, bottom: picture.restore(top, bottom, _F(share), out[top:bottom]),
        strips(0, len(stored), stored.shape[1], multiple=_GRID, at_once=_AT_ONCE),
    )
    return dataclasses.replace(photo, pixels=upright(out, orientation), components=None)


def _are_of(stored: np.ndarray, pixels: np.ndarray, orientation: int) -> bool:
    """Whether pixels are those of the components, by some of them: they may have been changed since."""
    before = upright(pixels, _BACK.get(orientation, orientation))
    middle = len(stored) // 2
    rows = slice(middle, middle + _GRID)
    return before.shape == stored.shape and np.array_equal(components.rgb(stored[rows]), before[rows])


@dataclass(frozen=True)
class _Plane:
    """A component of a strip: as the file's coefficients give it, and their numbers of steps."""

    values: np.ndarray  # (h, w) float32, centred on 0
    numbers: np.ndarray  # (h, w) padded to whole blocks, as `into_frequencies` orders them
    steps: np.ndarray  # (8, 8) by vertical and horizontal frequency

    @staticmethod
    def of(values: np.ndarray, steps: np.ndarray, certain: float) -> _Plane:
        """That of decoded values; coefficients are whole numbers of steps, which undoes the rounding of pixels."""
        height, width = values.shape
        whole = _whole_blocks(values)
        every = np.tile(steps.T, (whole.shape[0] // SIDE, whole.shape[1] // SIDE))
        numbers = np.rint(into_frequencies(whole) / every)
        exact = out_of_frequencies(numbers * every)
        blocks = (whole.shape[0] // SIDE, SIDE, whole.shape[1] // SIDE, SIDE)
        held = np.abs(exact - whole).reshape(blocks).max(axis=(1, 3)) < certain
        chosen = np.where(held[:, None, :, None], exact.reshape(blocks), whole.reshape(blocks)).reshape(whole.shape)
        return _Plane(np.ascontiguousarray(chosen[:height, :width]), numbers, steps)

    def restored(self, component: int) -> np.ndarray:
        """The values without what JPEG added, (h, w) float32."""
        kind = min(component, 1)
        first = shrunken(self.values, self.steps * _F(_THRESHOLDS[kind]))
        second = shrunken(self.values, self.steps * _F(_HALVES[kind]), first)
        height, width = second.shape
        return projected(_whole_blocks(second), self.numbers, self.steps, _REACH)[:height, :width]


@dataclass(frozen=True)
class _Picture:
    """A JPEG's components as they are stored, with what is known of their compression."""

    stored: np.ndarray  # Y, Cb and Cr, (H, W, 3) uint8
    steps: tuple[np.ndarray, ...]  # (8, 8) for each component
    factors: tuple[int, int]  # rows and columns of pixels for a chroma value

    def restore(self, top: int, bottom: int, share: np.float32, out: np.ndarray) -> None:
        """RGB of rows top..bottom, blended by `share` with what they were, into `out`; `top` is a multiple of 16."""
        start = max(0, top - _HALO)
        rows = slice(top - start, bottom - start)
        given = self.stored[start : bottom + _HALO]
        luma, *chroma = (given[..., component].astype(_F) - _F(128) for component in range(3))
        made = [_Plane.of(luma, self.steps[0], _CERTAIN[0]).restored(0)]
        for component, values in enumerate(chroma, 1):
            certain = _CERTAIN[0] if self.factors == (1, 1) else _CERTAIN[1]
            plane = _Plane.of(self._reduced(values), self.steps[component], certain).restored(component)
            made.append(self._enlarged(plane, made[0]))
        after = np.clip(_pixels([values[rows] for values in made]), 0, 255)
        was = components.rgb(given[rows]).astype(_F)
        after = was + (after - was) * share
        out[:] = np.rint(after, out=after)

    def _reduced(self, values: np.ndarray) -> np.ndarray:
        """Chroma as the file holds it, of chroma as it was decoded."""
        for axis, factor in enumerate(self.factors):
            if factor == 2:
                values = _without_interpolation(_halved(values, axis), axis)
        return values

    def _enlarged(self, chroma: np.ndarray, luma: np.ndarray) -> np.ndarray:
        """Chroma of luma's size, with the edges of luma that it goes along with."""
        if self.factors == (1, 1):
            return chroma
        small = luma
        for axis, factor in enumerate(self.factors):
            small = _halved(small, axis) if factor == 2 else small
        mean_c, mean_y = _box(chroma), _box(small)
        slopes = (_box(chroma * small) - mean_c * mean_y) / (_box(small * small) - mean_y * mean_y + _F(_FLAT))
        slopes = _box(np.clip(slopes, -_F(_STEEPEST), _F(_STEEPEST)))
        edges = luma - self._interpolated(small, luma.shape)
        return (
            self._interpolated(chroma, luma.shape)
            + _F(_CHROMA_FOLLOWS) * self._interpolated(slopes, luma.shape) * edges
        )

    def _interpolated(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        for axis, factor in enumerate(self.factors):
            if factor == 2:
                values = _doubled(values, axis, shape[axis])
        return values


def _whole_blocks(values: np.ndarray) -> np.ndarray:
    """A plane with its last row and column repeated up to multiples of 8."""
    height, width = values.shape
    return np.pad(values, ((0, -height % SIDE), (0, -width % SIDE)), "edge")


def _pixels(values: list[np.ndarray]) -> np.ndarray:
    """RGB (h, w, 3) float32 of Y, Cb and Cr centred on 0 (ITU-T T.871, 7)."""
    luma = values[0] + _F(128)
    blue, red = values[1] * _F(2 * (1 - 0.114)), values[2] * _F(2 * (1 - 0.299))
    green = (_F(0.114) * blue + _F(0.299) * red) * _F(-1 / 0.587)
    return np.stack([luma + red, luma + green, luma + blue], axis=-1)


def _halved(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of pairs along an axis; the last value of an odd number is repeated."""
    values = np.moveaxis(values, axis, 0)
    if len(values) % 2:
        values = np.concatenate([values, values[-1:]])
    return np.moveaxis((values[::2] + values[1::2]) * _F(0.5), 0, axis)


def _doubled(values: np.ndarray, axis: int, length: int) -> np.ndarray:
    """libjpeg's interpolation along an axis, three parts of the nearer value and one of the other; `length` values."""
    values = np.moveaxis(values, axis, 0)
    out = np.empty((2 * len(values), *values.shape[1:]), _F)
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    out[::2] = values * _F(0.75) + before * _F(0.25)
    out[1::2] = values * _F(0.75) + after * _F(0.25)
    return np.moveaxis(out[:length], 0, axis)


def _without_interpolation(values: np.ndarray, axis: int) -> np.ndarray:
    """The values whose `_doubled` and then `_halved` are these.

    Both together weigh neighbours 1/8, 6/8, 1/8. The inverse of that has weights sqrt(2) * (2 sqrt(2) - 3) ^ |n|.
    """
    values = np.moveaxis(values, axis, 0)
    wide = np.concatenate([values[_UNDONE - 1 :: -1], values, values[: -_UNDONE - 1 : -1]])
    if len(wide) != len(values) + 2 * _UNDONE:  # fewer values than taps
        wide = np.pad(values, ((_UNDONE, _UNDONE), (0, 0)), "symmetric")
    weights = (np.sqrt(2) * (2 * np.sqrt(2) - 3) ** np.abs(np.arange(-_UNDONE, _UNDONE + 1))).astype(_F)
    weights /= weights.sum(dtype=_F)
    out = wide[: len(values)] * weights[0]
    for tap in range(1, 2 * _UNDONE + 1):
        out += wide[tap : tap + len(values)] * weights[tap]
    return np.moveaxis(out, 0, axis)


def _box(values: np.ndarray) -> np.ndarray:
    """Means of 3 x 3 values; edges repeat."""
    for axis in range(2):
        values = np.moveaxis(values, axis, 0)
        before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
        values = np.moveaxis((before + values + after) * _F(1 / 3), 0, axis)
    return values
