"""One photo in, one enhanced photo out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from qatie_cli.engines import Engine, Features, Network
from qatie_cli.enhance.guided import MIRRORED_PX, GuidedResidual
from qatie_cli.model import tone, tone_map
from qatie_cli.model.moments import Moments, Tile, of_tiles, tiles
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.photo.colour import Colours

FAST_PIXELS = 4_000_000  # what the network sees of a photo in fast mode, at most
STRIP_PIXELS = 1 << 18  # full-size work is done in strips of about this size: they stay in the processor's cache
COLOUR_STRIP_PIXELS = 1 << 20  # larger where colours are converted: setting up a conversion takes milliseconds


def enhance(
    pixels: np.ndarray,
    engine: Engine,
    strength: float = 1.0,
    tile_side: int | None = None,
    colours: Colours | None = None,
    reduction: int = 1,
) -> np.ndarray:
    """Enhance a photo.

    Args:
        pixels: (H, W, 3) uint8 or uint16, sRGB-encoded unless `colours` says otherwise, upright; any size.
        strength: 0..1 blends with the photo; at 0 the result equals it.
        tile_side: a multiple of 8, to work in tiles of that side, whose norms share the whole photo's statistics; the
            result is the same within a rounding step, memory is bounded, and it takes about four times as long. None
            works on the whole photo at once.
        colours: the space of a photo that is not in sRGB. The networks see it in sRGB, and the change returns to its
            own space, so that what sRGB cannot hold is kept.
        reduction: the network sees the photo reduced by this factor, and its residual is brought to full resolution
            guided by the photo (`fast_reduction` says by how much it may be). Tone is decided and applied in full.

    Returns:
        (H, W, 3) of the same type: the photo, toned, plus the network's residual (paper, decoder), clamped. A 16-bit
        photo keeps its precision: only what the networks look at is 8 bit.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a photo is (H, W, 3) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies in 0..1, not {strength}")
    if strength == 0:
        return pixels.copy()
    toned = _Toned(pixels, engine, colours)
    out = np.empty_like(pixels)
    if reduction > 1:
        reduced = toned.reduced(reduction)
        residual = _residual_to_the_edge(engine.network, reduced, tile_side)
        guided = GuidedResidual(reduced, residual, reduction)
        height, width = pixels.shape[:2]
        for top, bottom in toned.strips(0, height, width):
            rows = toned.rows(top, bottom, 0, width)
            _finish(toned, (top, bottom, 0, width), rows, guided.rows(top, rows), strength, out)
        return out
    for tile, features in _tiled(engine.network, toned, tile_side):
        height, width = out.shape[:2]
        left, right = tile.core[2], min(tile.core[3], width)
        columns = slice(left - tile.seen[2], right - tile.seen[2])
        for top, bottom in toned.strips(tile.core[0], min(tile.core[1], height), right - left):
            # The tail works on even rows; a last odd row has its partner in the padding.
            first, last = top - tile.seen[0], bottom + bottom % 2 - tile.seen[0]
            residual = engine.network.residual(features, first, last)[: bottom - top, columns]
            rows = toned.rows(top, bottom, left, right)
            _finish(toned, (top, bottom, left, right), rows, residual, strength, out)
    return out


def fast_reduction(width: int, height: int) -> int:
    """By how much fast mode reduces a photo of `width` x `height` pixels for the network: 1 for small ones."""
    return math.ceil(math.sqrt(width * height / FAST_PIXELS))


class _Seen(Protocol):
    """A photo as the network sees it, sides multiples of 8."""

    height: int
    width: int

    def network_input(self, tile: Tile) -> np.ndarray:
        """What is seen of a tile, (h, w, 3) uint8."""


@dataclass(frozen=True)
class _Reduced:
    """A reduced photo, (h, w, 3) uint8."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def network_input(self, tile: Tile) -> np.ndarray:
        top, bottom, left, right = tile.seen
        return np.ascontiguousarray(self.pixels[top:bottom, left:right])


def _tiled(network: Network, seen: _Seen, tile_side: int | None) -> Iterator[tuple[Tile, Features]]:
    """Features of the whole photo at once, or of its tiles one after the other."""
    height, width = seen.height, seen.width
    if tile_side is None:
        whole = Tile((0, height, 0, width), (0, height, 0, width))
        yield whole, network.features(seen.network_input(whole))
        return
    parts = tiles(height, width, tile_side)

    def features(tile: Tile, moments: Moments) -> Features:
        return network.features(seen.network_input(tile), moments)

    moments = of_tiles(parts, features)
    for tile in parts:
        yield tile, features(tile, moments)


def residual_of(network: Network, pixels: np.ndarray, tile_side: int | None) -> np.ndarray:
    """Residual (h, w, 3) float32 of what the network sees, (h, w, 3) uint8, sides multiples of 8."""
    out = np.empty(pixels.shape, np.float32)
    for tile, features in _tiled(network, _Reduced(pixels), tile_side):
        top, bottom, left, right = tile.core
        bottom, right = min(bottom, pixels.shape[0]), min(right, pixels.shape[1])
        columns = slice(left - tile.seen[2], right - tile.seen[2])
        rows = max(2, STRIP_PIXELS // (right - left) // 2 * 2)
        for first in range(top, bottom, rows):
            last = min(first + rows, bottom)
            part = network.residual(features, first - tile.seen[0], last - tile.seen[0])
            out[first:last, left:right] = part[:, columns]
    return out


def _residual_to_the_edge(network: Network, pixels: np.ndarray, tile_side: int | None) -> np.ndarray:
    """`residual_of` a picture that goes on mirrored beyond its edges.

    The convolutions would see zeros there, and what they do to noise and fine texture would end 5 pixels before the
    edge: a rim that shows once it is brought to full resolution.
    """
    mirrored = np.pad(pixels, ((MIRRORED_PX, MIRRORED_PX), (MIRRORED_PX, MIRRORED_PX), (0, 0)), mode="reflect")
    residual = residual_of(network, mirrored, tile_side)
    return residual[MIRRORED_PX:-MIRRORED_PX, MIRRORED_PX:-MIRRORED_PX]


def _finish(
    toned: _Toned,
    place: tuple[int, int, int, int],
    rows: np.ndarray,
    residual: np.ndarray,
    strength: float,
    out: np.ndarray,
) -> None:
    """Toned rows plus residual, into their place (top, bottom, left, right) of `out`."""
    top, bottom, left, right = place
    top_level = np.float32(np.iinfo(out.dtype).max)
    source = toned.pixels[top:bottom, left:right]
    result = np.clip(rows + residual, 0, 1)
    if toned.colours is not None:
        result = _in_own_space(result, source, toned.colours)
    result *= top_level
    if strength < 1:
        result = source + np.float32(strength) * (result - source)
    np.rint(result, out=result)
    out[top:bottom, left:right] = result


def _in_own_space(result: np.ndarray, source: np.ndarray, colours: Colours) -> np.ndarray:
    """`source` (h, w, 3), in its own space, changed as its sRGB version was to become `result`; float32 in 0..1."""
    before, after = (
        colours.from_srgb(values).astype(np.float32)
        for values in (_u16(colours.to_srgb(source)), np.rint(result * np.float32(65535)).astype(np.uint16))
    )
    after -= before
    after *= np.float32(1 / 65535)
    after += source * np.float32(1 / np.iinfo(source.dtype).max)
    return np.clip(after, 0, 1, out=after)


def _u16(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint16 else values.astype(np.uint16) * np.uint16(257)


class _Toned:
    """A photo seen in sRGB through its tone map, part by part: never held whole in float."""

    def __init__(self, pixels: np.ndarray, engine: Engine, colours: Colours | None) -> None:
        self.pixels, self.colours = pixels, colours
        decided = tone.decide(engine.tone, pixels if colours is None else _overview(pixels, colours))
        self.levels = int(np.iinfo(pixels.dtype).max) + 1
        self.table = None if decided is None else decided.table(self.levels)
        self.height, self.width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in pixels.shape[:2])

    def rows(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The part top..bottom, left..right of the photo, (rows, columns, 3) float32 in 0..1."""
        part = self.pixels[top:bottom, left:right]
        if self.colours is not None:
            part = self.colours.to_srgb(part)
        if self.table is None:
            return part / np.float32(self.levels - 1)
        return tone_map.apply_table(part, self.table)

    def network_input(self, tile: Tile) -> np.ndarray:
        """What is seen of a tile, toned, in 8 bit; the photo's right and bottom edges are repeated up to its sides."""
        top, bottom, left, right = tile.seen
        seen = np.empty((bottom - top, right - left, 3), np.uint8)
        height, width = (min(edge, side) for edge, side in zip((bottom, right), self.pixels.shape, strict=False))
        for first, last in self.strips(top, height, right - left):
            part = self.rows(first, last, left, width)
            part *= np.float32(255)
            np.rint(part, out=part)
            seen[first - top : last - top, : width - left] = part
        seen[: height - top, width - left :] = seen[: height - top, width - left - 1 : width - left]
        seen[height - top :] = seen[height - top - 1]
        return seen

    def reduced(self, factor: int) -> np.ndarray:
        """The whole photo, toned, means of factor x factor pixels: (h, w, 3) uint8, sides multiples of 8.

        The photo's right and bottom edges are repeated as far as that takes.
        """
        height, width = self.pixels.shape[:2]
        sides = [-(-side // (factor * SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (height, width)]
        out = np.empty((*sides, 3), np.uint8)
        rows = factor * max(1, STRIP_PIXELS // width // factor)
        for top in range(0, height, rows):
            part = self.rows(top, min(top + rows, height), 0, width)
            margin = [(0, -part.shape[0] % factor), (0, factor * sides[1] - width), (0, 0)]
            part = np.pad(part, margin, mode="edge")
            means = torch.from_numpy(part).permute(2, 0, 1)[None]
            means = F.avg_pool2d(means, factor)[0].permute(1, 2, 0).mul_(255).round_()
            first = top // factor
            out[first : first + means.shape[0]] = means.numpy()
        covered = -(-height // factor)
        out[covered:] = out[covered - 1]
        return out

    def strips(self, top: int, bottom: int, width: int) -> list[tuple[int, int]]:
        """Top and bottom of strips that cover the rows top..bottom; every strip's top is even if `top` is."""
        pixels = STRIP_PIXELS if self.colours is None else COLOUR_STRIP_PIXELS
        rows = max(2, pixels // width // 2 * 2)
        return [(first, min(first + rows, bottom)) for first in range(top, bottom, rows)]


def _overview(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    """A photo in another space, small enough to be converted at once and large enough for the tone stage: in sRGB."""
    return colours.to_srgb(tone.reduced(pixels))
