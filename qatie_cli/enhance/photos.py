"""A photo in, a better photo out: colour profile, gray, transparency, bit depth, reduction and memory inside."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from qatie_cli import kernels
from qatie_cli.engines import Engine
from qatie_cli.enhance import jpeg, memory
from qatie_cli.enhance.noise import CLEAN_LEVELS, NOISY_LEVELS, colour_noise
from qatie_cli.enhance.pixels import enhance, fast_reduction
from qatie_cli.enhance.refinement import Refinement
from qatie_cli.photo import colour
from qatie_cli.photo.beside import renditions
from qatie_cli.photo.content import Photo

_LARGE = 3 * kernels.WORTH_IMPORTING  # values; larger photos load the compiled kernels
_LEAST_SHARE = 0.2  # of the residual, for a photo without noise: enough for JPEG blocks and soft edges


@dataclass(frozen=True)
class Effect:
    """How photos are enhanced.

    Args:
        strength: 0..1; 0 leaves a photo as it is, 1 is the full effect.
        fast: reduce photos above 4 megapixels for the network; tone and edges stay at full resolution. None does so
            except for noisy ones (`noise.colour_noise`), since reducing hides their noise from the network.
        reduction: reduce by this factor whatever the photo's size; for measurements. None leaves it to `fast`.
    """

    strength: float = 1.0
    fast: bool | None = None
    reduction: int | None = None

    def refinement_of(self, pixels: np.ndarray) -> Refinement:
        """How the network sees a photo (H, W, 1 or 3), uint8 or uint16, and what share of its residual is applied.

        In a reduced photo plaster and knitwear look like noise. If it has none, little of the residual is applied.
        """
        if self.reduction is not None:
            return Refinement(self.reduction)
        factor = fast_reduction(pixels.shape[1], pixels.shape[0])
        if factor == 1 or self.fast is False:
            return Refinement()
        noise = colour_noise(pixels)
        if noise is None:
            return Refinement(factor)
        if noise > NOISY_LEVELS and not self.fast:
            return Refinement()
        return Refinement(factor, float(np.clip(noise / CLEAN_LEVELS, _LEAST_SHARE, 1)))


@dataclass(frozen=True)
class Enhancer:
    """An engine with an effect. Safe to call from several threads: an engine takes one photo at a time."""

    engine: Engine
    effect: Effect = Effect()

    def __call__(self, photo: Photo, how: Refinement | None = None) -> Photo:
        """The photo enhanced: same size, depth, colour space, transparency and metadata; gray stays gray.

        Args:
            how: as `Effect.refinement_of` returns it, with tiles if needed; None calls it, and uses no tiles.

        Raises:
            ValueError: the strength is not in 0..1.
        """
        if renditions.is_of_both(photo):
            sdr = renditions.sdr(photo)
            return renditions.changed(photo, sdr.pixels, self(sdr, how).pixels)
        how = how or self.effect.refinement_of(photo.pixels)
        colours = colour.of_photo(photo)
        with self.engine.computing():
            pixels = jpeg.restored(photo, self.effect.strength).rgb()
            better = enhance(
                pixels, self.engine, self.effect.strength, how.tile_side, colours, how.reduction, how.share
            )
        if pixels.size >= _LARGE:
            memory.note_loaded()
        return photo.with_pixels(better)

    def within(self, photo: Photo, max_memory: int | None = None) -> Photo:
        """The photo enhanced by itself.

        Args:
            max_memory: bytes that the whole process may hold meanwhile; None allows 60% of what is free.

        Raises:
            PhotoError: that is too little.
            ValueError: the strength is not in 0..1.
        """
        if renditions.is_of_both(photo):
            sdr = renditions.sdr(photo)
            return renditions.changed(photo, sdr.pixels, self.within(sdr, max_memory).pixels)
        with self.engine.computing():  # so that free memory is measured when its turn comes
            budget = memory.available(max_memory) + photo.pixels.nbytes
            how, (height, width, channels) = self.effect.refinement_of(photo.pixels), photo.pixels.shape
            pixel_bytes, sample_bytes = self.engine.network.bytes_per_pixel, photo.pixels.itemsize
            side = memory.tile_side(width, height, pixel_bytes, budget, sample_bytes, how.reduction, channels == 1)
            return self(photo, dataclasses.replace(how, tile_side=side))
