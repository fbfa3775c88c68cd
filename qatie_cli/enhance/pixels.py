"""Pixels in, enhanced pixels out."""

from __future__ import annotations

import math

import numpy as np

from qatie_cli.engines import Engine, Features, ResidualNetwork
from qatie_cli.enhance.guided import MIRRORED_PX, GuidedResidual
from qatie_cli.enhance.tiling import Region, residual_of, tiled
from qatie_cli.enhance.toned_rows import blended
from qatie_cli.enhance.toning import TonedPhoto
from qatie_cli.photo.colour import Colours

FAST_PIXELS = 4_000_000  # most pixels that the network sees in fast mode


def enhance(
    pixels: np.ndarray,
    engine: Engine,
    strength: float = 1.0,
    tile_side: int | None = None,
    colours: Colours | None = None,
    reduction: int = 1,
    share: float = 1.0,
) -> np.ndarray:
    """Enhance the pixels of a photo.

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
        share: 0..1 of the residual that is applied if the photo is reduced.

    Returns:
        (H, W, 3) of the same type: the photo, toned, plus the network's residual (paper, decoder), clamped, and
        with the local contrast that the tone stage decided. A 16-bit photo keeps its precision: only what the networks
        look at is 8 bit.

    Raises:
        ValueError: `pixels` or `strength` is not as above.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"a photo is (H, W, 3) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies in 0..1, not {strength}")
    if strength == 0:
        return pixels.copy()
    toned = TonedPhoto(pixels, engine, colours)
    out = np.empty_like(pixels, order="C")
    if reduction > 1:
        _finish_reduced(toned, engine.network, strength, tile_side, reduction, share, out)
    else:
        _finish_full(toned, engine.network, strength, tile_side, out)
    return out


def fast_reduction(width: int, height: int) -> int:
    """By how much fast mode reduces a photo of `width` x `height` pixels for the network: 1 for small ones."""
    return math.ceil(math.sqrt(width * height / FAST_PIXELS))


def _finish_full(
    toned: TonedPhoto,
    network: ResidualNetwork[Features],
    strength: float,
    tile_side: int | None,
    out: np.ndarray,
) -> None:
    """Fill `out` with the photo, toned, plus the residual that the network gives for it at full size."""
    height, width = out.shape[:2]
    for tile, features in tiled(network, toned, tile_side):
        left, right = tile.core[2], min(tile.core[3], width)
        columns = slice(left - tile.seen[2], right - tile.seen[2])
        bottom_of_tile = min(tile.core[1], height)
        for top, bottom in toned.strips(tile.core[0], bottom_of_tile, right - left, network.strips_at_once):
            # The tail works on even rows; a last odd row has its partner in the padding.
            first, last = top - tile.seen[0], bottom + bottom % 2 - tile.seen[0]
            residual = network.residual(features, first, last)[: bottom - top, columns]
            region = Region(top, bottom, left, right)
            if toned.colours is None:
                toned.finish(region, residual, strength, out)
            else:
                _finish_in_own_space(toned, region, toned.rows(region), residual, strength, out)
            del residual  # before the next strip's is made


def _finish_reduced(
    toned: TonedPhoto,
    network: ResidualNetwork[Features],
    strength: float,
    tile_side: int | None,
    reduction: int,
    share: float,
    out: np.ndarray,
) -> None:
    """Fill `out` with the photo, toned, plus a share of the residual that the network gives for it at reduced size."""
    reduced = toned.reduced(reduction)
    residual = _residual_to_the_edge(network, reduced, tile_side)
    if share < 1:
        residual *= np.float32(share)
    guided = GuidedResidual(reduced, residual, reduction)
    if toned.colours is None:
        toned.finish_by(guided, strength, out)
        return
    height, width = out.shape[:2]
    for top, bottom in toned.strips(0, height, width):
        region = Region(top, bottom, 0, width)
        rows = toned.rows(region)
        _finish_in_own_space(toned, region, rows, guided.rows(top, rows), strength, out)


def _residual_to_the_edge(network: ResidualNetwork[Features], pixels: np.ndarray, tile_side: int | None) -> np.ndarray:
    """`residual_of` a picture with mirrored margins.

    With zero padding, noise reduction and texture end 5 pixels before the edge: a visible rim at full resolution.
    """
    mirrored = np.pad(pixels, ((MIRRORED_PX, MIRRORED_PX), (MIRRORED_PX, MIRRORED_PX), (0, 0)), mode="reflect")
    residual = residual_of(network, mirrored, tile_side)
    return residual[MIRRORED_PX:-MIRRORED_PX, MIRRORED_PX:-MIRRORED_PX]


def _finish_in_own_space(
    toned: TonedPhoto, region: Region, rows: np.ndarray, residual: np.ndarray, strength: float, out: np.ndarray
) -> None:
    """Toned rows plus residual, in the photo's own space and depth, into their region of `out`."""
    assert toned.colours is not None
    source = region.of(toned.pixels)
    enhanced = toned.contrasted(np.clip(rows + residual, 0, 1), region)
    result = _in_own_space(enhanced, source, toned.colours)
    result *= np.float32(np.iinfo(out.dtype).max)
    region.of(out)[:] = np.rint(blended(result, source, strength))


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
